"""Slips that passed their check once, or got no sentence of their own, as learners write them."""

from __future__ import annotations

import pytest
from test_exercises import EXERCISES, define

from course_lib.lessons.exercise import judge

LOSS = "def mean_squared_error(m, b, x, y):\n"
DESCENT = """
def fit(x, y, rate, steps):
    line = torch.zeros(2, requires_grad=True)
    for _ in range(steps):
        %s
        loss = ((line[0] * x + line[1] - y) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            %s
    return line.detach()
"""
CHAIN = "import numpy as np\ndef chain_signals(slopes, last):\n"
LEAVES = "it leaves PyTorch on the way (NumPy, .item(), float() or torch.tensor(…))"
DOUBLE = "It gives numbers of torch.float64, and the notebook goes on in torch.float32: add .to("
CONVOLVED = """
def convolve(image, kernel):
    k = len(kernel)
    out = np.zeros((len(image) - k + 1, len(image[0]) - k + 1))
    for r, c in np.ndindex(*out.shape):
        out[r, c] = (image[r:r + k, c:c + k] * kernel).sum()
    return torch.tensor(out)
"""
PLAN = """
def plan(base):
    widths = [base * 2**stage for stage in (0, 0, 1, 1, 2, 2, 3, 3)]
    return torch.tensor(list(zip([base, *widths[:-1]], widths, (1, 1, 2, 1, 2, 1, 2, 1))))
"""
CUT = """
def cut_conv(conv, outs=None, ins=None):
    narrow = copy.deepcopy(conv)
    narrow.weight = nn.Parameter(%s)
    if narrow.bias is not None:
        narrow.bias = nn.Parameter(conv.bias[outs])
    return narrow
"""
KEEP = """
def keep_largest(block, following, count):
    conv2, projection = (p.weight.detach() for p in (block.conv2, block.shortcut[0]))
    kept = (SIZE).topk(count).indices.sort().values
    return prune_conv2(block, following, kept)
"""
L1 = "conv2.abs().sum((1, 2, 3))"
SIGNALS = "def signal_norms(loss, outputs):\n    found = torch.autograd.grad(loss, outputs)\n"
SPREAD = "def he_std(weight):\n    return (2 / (weight.shape[1] * %s)) ** 0.5"
GO_ON = """
def prune_and_go_on(network, optimizer, groups, keep):
    narrow = prune(network, groups, keep)
    new = carry_optimizer(optimizer, network, narrow, groups, keep)
"""

WRONG = [
    ("01.1", LOSS + "    return torch.tensor(float(((m * x + b - y) ** 2).mean()))", LEAVES),
    ("01.1", LOSS + "    e = m * x + b - y\n    e = e.detach()\n    return (e * e).mean()", LEAVES),
    (
        "01.1",
        "import numpy as np\n"
        + LOSS
        + "    return torch.tensor(np.mean(((m * x + b - y) ** 2).numpy()))",
        LEAVES,
    ),
    (
        "01.1",
        LOSS + "    x *= m\n    return ((x + b - y) ** 2).mean()",
        "it changes a tensor that it is given",
    ),
    ("01.3", DESCENT % ("pass", "line = line - rate * line.grad"), "line = line - … makes a new"),
    (
        "01.3",
        DESCENT % ("line.grad.zero_()", "line -= rate * line.grad"),
        "no gradient yet to clear",
    ),
    (
        "01.3",
        DESCENT % ("pass", "line = line - rate * line.grad; line.grad.zero_()"),
        "and so it is for a new line (line = line - …)",
    ),
    ("01.5", "def sizes(weight):\n    return weight.double().abs().sum(dim=1)", DOUBLE),
    ("02.1", "import numpy as np\n" + CONVOLVED, DOUBLE),
    ("02.7", PLAN, "It gives a table where a list is expected: use .tolist()."),
    (
        "03.1",
        CHAIN + "    return (last * np.cumprod([1, *slopes[::-1]]))[::-1]",
        "It stops with ValueError: step must be greater than zero",
    ),
    ("03.4", SIGNALS + "    return [sum(sum(g**2)).sqrt().item() for g in found]", "It stops with"),
    ("03.5", SPREAD % "weight.shape[2] ** 2", "The numbers differ."),
    ("04.1", CUT % "conv.weight[outs][:, ins]", "None as an index adds one. Here it means all"),
    ("04.1", CUT % "conv.weight[outs, :][:, ins].clone()", "write `if outs is not None`"),
    ("04.6", KEEP.replace("SIZE", L1 + " + projection.abs().sum((1, 2, 3))"), "Both decide here"),
    ("04.6", KEEP.replace("SIZE", "(conv2**2).sum((1, 2, 3))"), "The numbers differ."),
    (
        "04.9",
        GO_ON + "    optimizer.param_groups, optimizer.state = new.param_groups, new.state\n"
        "    return narrow, optimizer",
        "You moved the weights and their momentum into the optimiser that you were given",
    ),
]
RIGHT = [
    ("01.3", DESCENT % ("line.grad = None", "line -= rate * line.grad")),
    ("01.3", DESCENT % ("pass", "line -= rate * line.grad; line.grad.zero_()")),
    ("01.1", LOSS + "    return F.mse_loss(m * x + b, y)"),
    ("02.7", PLAN.replace("torch.tensor(", "(")),
    (
        "03.1",
        CHAIN + "    return [last * float(np.prod(slopes[i:])) for i in range(len(slopes) + 1)]",
    ),
    ("03.4", SIGNALS + "    return [(g**2).sum().sqrt().item() for g in found]"),
    ("03.5", SPREAD % "weight.shape[2] * weight.shape[3]"),
    ("04.6", KEEP.replace("SIZE", L1)),
    ("04.9", GO_ON + "    return narrow, new"),
]


@pytest.mark.parametrize(("name", "source", "says"), WRONG)
def test_a_slip_is_refused_with_its_sentence(name: str, source: str, says: str) -> None:
    verdict = judge(EXERCISES[name], define(name, source))
    assert verdict.status == "not yet"
    assert says in " ".join(verdict.text.split()), verdict.text


@pytest.mark.parametrize(("name", "source"), RIGHT)
def test_what_is_near_a_slip_and_right_passes(name: str, source: str) -> None:
    verdict = judge(EXERCISES[name], define(name, source))
    assert verdict.status == "passed", verdict.text
