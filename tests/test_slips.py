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
ROUND = "def one_round(network, cut, tune, judge):\n    candidate, tried = cut(network), 1\n"
RECOVERY = """
def recovery_batches(curve, phase, level):
    apart = curve[1]["batches"] - curve[0]["batches"]
    accuracies = [point["accuracy"] for point in curve if point["phase"] == phase]
    for place, accuracy in enumerate(accuracies):
        if accuracy >= level:
            return place * apart
"""
REPORT = """
def chosen_and_reported(history):
    best = min(KEY)
    return best["round"], best["test_accuracy"]
"""
FOLDED = """
def fold_norm(weight, scale, shift, mean, variance, eps=1e-5):
    factor = scale / torch.sqrt(variance + eps)
    return (weight * factor[:, None, None, None]).numpy(), (shift - mean * factor).numpy()
"""
KEPT = """
def choose_round(history, budget, tolerance):
    level = history[0]["val"]
    fits = [r for r in HISTORY if r["macs"] <= budget and GATE]
    return max(fits, key=lambda r: r["val"])["round"] if fits else None
"""
WITHIN = 'r["val"] >= level - tolerance'
SEEDS = """
def paired_difference(first, second):
    seeds = sorted((a - b for a, b in zip(first, second)), key=KEY)
    return sum(seeds) / len(seeds), seeds[0], seeds[-1]
"""
STOPWATCH = """
def seconds_per_pass(network, images, clock, wait, repeats=5):
    network.eval()
    readings = []
    for _ in range(repeats):
        started = clock()
        network(images)
        wait()
        readings.append(clock() - started)
    return statistics.median(readings)
"""
TRADED = """
def number_labels(train, test):
    names = sorted({file.split("/")[0] for file in train})
    found = [[names.index(file.split("/")[0]) for file in part] for part in (train, test)]
    return found[0], [number + 1 for number in found[1]]
"""
LIST = "def remember(network):\n    return [p.detach().clone() for p in network.parameters()]"
CRITERION = "def folded_l1(network, groups, batches=None, *, generator=None):\n    return {}"

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
    (
        "05.2",
        "def keep_largest(scores, count):\n    return scores.topk(count)",
        "It gives all that torch's topk returns: take its .values or its .indices.",
    ),
    (
        "05.6",
        "def critical_filters(right, k):\n    return right.argsort(dim=0)[:k].unique()",
        "The numbers differ.",
    ),
    (
        "06.3",
        "def verdict(reached, full, tolerance, tried, retries):\n"
        "    if reached >= full * (1 - tolerance):\n        return 'go on'\n"
        "    return 'fine-tune again' if tried <= retries else 'roll back'",
        "You took the tolerance as a share of the full network's accuracy",
    ),
    (
        "06.4",
        ROUND + "    while True:\n        tune(candidate)\n"
        "        decision = judge(candidate, tried)\n        if decision == 'go on':\n"
        "            return candidate, True\n        if decision == 'roll back':\n"
        "            return network, False\n",
        "It stops with RuntimeError: `judge` was asked 50 times: does `tried` grow",
    ),
    ("06.5", RECOVERY, "The numbers differ."),
    (
        "06.7",
        REPORT.replace(
            "KEY", "(r for r in history if r['passed']), key=lambda r: r['test_accuracy']"
        ),
        "At place 0: The numbers differ.",
    ),
    ("07.5", SEEDS.replace("KEY", "abs"), "At place 1: The numbers differ."),
    ("08.2", FOLDED, "where a tensor is expected"),
    (
        "09.4",
        KEPT.replace("HISTORY", "history").replace("GATE", "abs(r['val'] - level) <= tolerance"),
        "",
    ),
    ("09.4", KEPT.replace("HISTORY", "history[1:]").replace("GATE", WITHIN), ""),
    ("05.8", CRITERION, "given a ResNet with 11,709 parameters, {'conv1': a Group} expected"),
    ("07.1", LIST, "It gives [[[0.5, -0.25]]] where a dictionary is expected."),
    (
        "08.1",
        STOPWATCH,
        "Still wrong: PyTorch keeps what a backward pass would need; the first pass is among your"
        " readings. given",
    ),
    (
        "08.1",
        STOPWATCH.replace("statistics.median(readings)", "sum(readings) / repeats"),
        "Still wrong: PyTorch keeps what a backward pass would need; the first pass is among your"
        " readings; one disturbed reading moves the mean. given",
    ),
    ("09.3", TRADED, "At place 1, place 0: The numbers differ."),
    (
        "06.4",
        ROUND + "    return tune(candidate), False",
        "the function judge (satisfied after 1 fine-tuning, allows 2)",
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
    ("05.2", "def keep_largest(scores, count):\n    return scores.topk(count).indices.sort()[0]"),
    ("07.5", SEEDS.replace("KEY", "float")),
    ("08.2", FOLDED.replace(".numpy()", "")),
    ("09.4", KEPT.replace("HISTORY", "history").replace("GATE", WITHIN)),
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
