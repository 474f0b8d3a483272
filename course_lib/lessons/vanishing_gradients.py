"""The exercises of notebook 03: signals that travel backwards through deep networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.lessons.deep import he_std
from course_lib.lessons.exercise import Case, Exercise, Mistake
from course_lib.lessons.prediction import Question


def chain_signals(slopes: Sequence[float], last: float) -> list[float]:
    """dL/dy of every layer, first to last, from the slopes of layers 2 to n and dL/dy_n."""
    signals = [last]
    for slope in reversed(slopes):
        signals.append(signals[-1] * slope)
    return signals[::-1]


def _wrong_end(slopes: Sequence[float], last: float) -> list[float]:
    signals = [last]
    for slope in slopes:
        signals.append(signals[-1] * slope)
    return signals[::-1]


def skip_signal(slopes: Sequence[float], slope5: float, last: float) -> float:
    """dL/dy_1 where y_1 is added to what layers 2 to 4 make of it, before layer 5."""
    return last * slope5 * (1 + math.prod(slopes))


def residual_signal(slopes: Sequence[float]) -> float:
    """What reaches the entrance of a row of blocks y + f(y), of a signal of 1 at the exit."""
    return math.prod(1 + slope for slope in slopes)


def signal_norms(loss: Tensor, outputs: Sequence[Tensor]) -> list[float]:
    """The length of the gradient of the loss with respect to each of the outputs."""
    return [gradient.norm().item() for gradient in torch.autograd.grad(loss, outputs)]


def residual(x: Tensor, layer: nn.Module) -> Tensor:
    """A layer with a skip connection around it."""
    return layer(x) + x


def _layers() -> list[Case]:
    """A short chain of layers, for a batch of two: the loss, and the output of each layer."""
    x, found = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.8, -1.2]]), []
    for number in range(3):
        weight = torch.linspace(-0.6, 0.9, 9).view(3, 3).roll(number)
        x = torch.tanh((x if number else x.requires_grad_()) @ weight)
        found.append(x)
    images = torch.linspace(-1, 1, 16).view(2, 2, 2, 2).requires_grad_()  # as in the notebook
    double = images * 2
    return [(x.square().sum(), found), (double.square().sum(), [double])]


def _backwards(answer: Callable[..., Any], case: Case) -> Any:
    """What comes out, and what arrives by autograd at the entrance and at the weight."""
    x, layer = case
    x = x.clone().requires_grad_()
    out = answer(x, layer)
    if out is None:
        return None
    signals = torch.autograd.grad(out.sum(), [x, layer.weight], allow_unused=True)
    entrance, weight = (torch.zeros(1) if s is None else s for s in signals)
    return {"output": out, "signal at the entrance": entrance, "gradient of the weight": weight}


def _one_layer() -> list[Case]:
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.1, -0.2], [0.3, 0.05]]))
    return [(torch.tensor([[1.0, 2.0]]), layer)]


CHAIN = Exercise(
    id="03.1",
    title="The chain, backwards",
    solution=chain_signals,
    cases=lambda: [
        ([0.5], 1.0),
        ([0.5, 0.2], 2.0),
        ([0.5, -0.25, 3.0, 0.1], 0.8),
        ([torch.tensor(0.5), torch.tensor(0.2)], torch.tensor(2.0)),  # as in the notebook
    ],
    praise="One multiplication per layer, and each result is used again: this is backpropagation.",
    mistakes=(
        Mistake(
            _wrong_end,
            "You took the slopes from the wrong end: going backwards from the last layer, the last"
            " slope of the list comes first.",
        ),
        Mistake(
            lambda slopes, last: [last, *chain_signals(slopes, last)[-2::-1]],
            "The numbers are right, but in the order in which you computed them: layer 1 comes"
            " first.",
        ),
        Mistake(
            lambda slopes, last: [*(last * slope for slope in slopes), last],
            "Each layer has only its own slope here: what arrives at a layer has passed through all"
            " later ones.",
        ),
        Mistake(
            lambda slopes, last: [last + sum(slopes[i:]) for i in range(len(slopes) + 1)],
            "You added the slopes: along a chain they multiply.",
        ),
    ),
)

SKIP = Exercise(
    id="03.2",
    title="The chain with a skip",
    solution=skip_signal,
    cases=lambda: [([0.5], 0.5, 1.0), ([0.5, 0.2, 0.1], 0.8, 2.0), ([-1.0, 1.0, 1.0], 0.5, 1.0)],
    praise="Two paths, two terms, and both go through layer 5.",
    mistakes=(
        Mistake(
            lambda slopes, slope5, last: last * slope5 * math.prod(slopes),
            "This is the chain without the skip: the path along the skip is missing.",
        ),
        Mistake(
            lambda slopes, slope5, last: 1 + last * slope5 * math.prod(slopes),
            "You added 1 to the whole: what comes along the skip has passed through layer 5, too.",
        ),
        Mistake(
            lambda slopes, slope5, last: last * (1 + slope5 * math.prod(slopes)),
            "Only your long path has the slope of layer 5: the skip ends before that layer, so both"
            " paths pass through it.",
        ),
        Mistake(
            lambda slopes, slope5, last: last * slope5,
            "This is the skip alone: the path through layers 2 to 4 is missing.",
        ),
    ),
)

RESIDUAL = Exercise(
    id="03.3",
    title="A skip around every layer",
    solution=residual_signal,
    cases=lambda: [([0.5],), ([0.5, 0.5, 0.5],), ([-0.5, 2.0, 0.1],)],
    praise="Multiplied out, this is a sum over every way of taking or skipping each block.",
    mistakes=(
        Mistake(
            lambda slopes: 1 + math.prod(slopes),
            "This is one skip around all of the layers: here each layer has its own.",
        ),
        Mistake(lambda slopes: math.prod(slopes), "This is the chain without any skip."),
        Mistake(
            lambda slopes: 1 + sum(slopes),
            "These are the paths through no layer and through exactly one: those through two and"
            " more are missing.",
        ),
    ),
)

NORMS = Exercise(
    id="03.4",
    title="Measure the signal",
    solution=signal_norms,
    cases=_layers,
    praise="One backward pass gives the signal at every layer.",
    mistakes=(
        Mistake(
            lambda loss, outputs: [output.norm().item() for output in outputs],
            "These are the lengths of the outputs themselves, on the way forward: the exercise asks"
            " for the gradient of the loss with respect to them.",
        ),
        Mistake(
            lambda loss, outputs: [g.sum().item() for g in torch.autograd.grad(loss, outputs)],
            "These are sums, in which plus and minus cancel: take the length, .norm().",
        ),
        Mistake(
            lambda loss, outputs: signal_norms(loss, outputs)[::-1],
            "The numbers are right, but in reverse: the first belongs to the first output.",
        ),
        Mistake(
            lambda loss, outputs: [n**2 for n in signal_norms(loss, outputs)],
            "These are the squares of the lengths.",
        ),
        Mistake(
            lambda loss, outputs: [
                g.flatten(1).norm(dim=1).mean().item() for g in torch.autograd.grad(loss, outputs)
            ],
            "You measured each image of the batch by itself and took the mean: asked for is one"
            " length, that of the whole gradient.",
        ),
    ),
)

HE = Exercise(
    id="03.5",
    title="A spread that keeps the size",
    solution=he_std,
    cases=lambda: [
        (torch.zeros(4, 2, 1, 1),),
        (torch.zeros(4, 3, 3, 3),),
        (torch.zeros(8, 8, 3, 3),),
        (torch.zeros(4, 2, 1, 3),),
    ],
    praise="This is He et al.'s initialisation, in PyTorch: nn.init.kaiming_normal_.",
    mistakes=(
        Mistake(
            lambda weight: 2 / weight[0].numel(),
            "This is the variance: the spread is its square root.",
        ),
        Mistake(
            lambda weight: (1 / weight[0].numel()) ** 0.5,
            "The size would stay the same without ReLU, which sets half of the numbers to zero.",
        ),
        Mistake(
            lambda weight: (2 / weight.shape[1]) ** 0.5,
            "The positions of the kernel are missing: a 3×3 kernel reads nine numbers per channel.",
        ),
        Mistake(
            lambda weight: (2 / weight[:, 0].numel()) ** 0.5,
            "This counts filters instead of the numbers that one filter reads.",
        ),
    ),
)

HUNT = Exercise(
    id="03.6",
    title="Bug hunt: a skip that carries nothing back",
    solution=residual,
    cases=_one_layer,
    use=_backwards,
    praise="The same output as before, and now the signal has its short way back.",
    handed_out=Mistake(
        lambda x, layer: layer(x) + x.detach(),
        "The output is right, and the signal at the entrance is that of a layer without a skip.",
    ),
    mistakes=(
        Mistake(
            lambda x, layer: layer(x).detach() + x,
            "Now the signal goes along the skip only: the layer's weight gets no gradient.",
        ),
        Mistake(lambda x, layer: layer(x), "The skip is gone: it has to stay, and to work."),
        Mistake(
            lambda x, layer: layer(x) * x,
            "You multiplied the two: then the signal is multiplied by x as well.",
        ),
    ),
)

EXERCISES = (CHAIN, SKIP, RESIDUAL, NORMS, HE, HUNT)

QUESTIONS = (
    Question(
        id="03.p1",
        asks="With the skip, the term +1 appears in the signal at the output of",
        choices=("layer 1", "layers 1 to 4", "all layers"),
    ),
    Question(
        id="03.p2",
        asks="Signal after the first of 50 plain layers, relative to the last, as a power of ten",
        low=-60,
        high=20,
        form=".0f",
        close=4,
    ),
    Question(
        id="03.p3",
        asks="Both with batch norm, 32 layers deep: the lower training loss after 80 steps has the",
        choices=("plain network", "residual network", "neither: they are about equal"),
    ),
)
