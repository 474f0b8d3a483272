"""Notebook 05, its beginning: the size of a filter, and keeping the largest."""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.lessons.compare import tensors
from course_lib.lessons.exercise import Exercise, Mistake


def filter_l1(weight: Tensor) -> Tensor:
    """The sum of the absolute weights of each filter; weight of shape [filters, inputs, h, w]."""
    return weight.abs().sum(dim=(1, 2, 3))


def keep_largest(scores: Tensor, count: int) -> Tensor:
    """The indices of the `count` largest scores, in rising order."""
    return scores.argsort(descending=True)[:count].sort().values


def numbers(*shape: int) -> Tensor:
    """Distinct small numbers of both signs."""
    count = int(torch.tensor(shape).prod())
    return (((torch.arange(count) * 7 + 3) % 23 - 11) / 4).reshape(shape)


def _weights() -> list[tuple[Tensor]]:
    small = torch.tensor([[1.0, -2.0], [3.0, 0.5]]).view(2, 1, 1, 2)
    return [(small,), (numbers(4, 2, 3, 3),)]


SIZES = (
    Exercise(
        id="05.1",
        title="the size of each filter",
        solution=filter_l1,
        cases=_weights,
        compare=tensors,
        praise="This is the whole criterion of Li et al.: it looks at nothing but the weights.",
        mistakes=(
            Mistake(
                lambda weight: weight.sum(dim=(1, 2, 3)),
                "The weights were added with their signs, so that they cancel: take absolute"
                " values first.",
            ),
            Mistake(
                lambda weight: weight.sum(dim=(1, 2, 3)).abs(),
                "The absolute value comes too late: by then the weights of a filter have"
                " cancelled. Take absolute values first.",
            ),
            Mistake(
                lambda weight: weight.abs().mean(dim=(1, 2, 3)),
                "This is the mean of the absolute values: L1 is their sum.",
            ),
            Mistake(
                lambda weight: weight.abs().sum(dim=(0, 2, 3)),
                "You kept the dimension of the input channels: a filter is one entry of the"
                " first dimension, so that is the one that must be left.",
            ),
            Mistake(
                lambda weight: weight.square().sum(dim=(1, 2, 3)).sqrt(),
                "This is the L2 norm (root of the sum of squares): L1 adds absolute values.",
            ),
            Mistake(
                lambda weight: weight.abs().sum(),
                "This is one number for the whole layer: name the dimensions to sum over, so that"
                " the filters stay apart.",
            ),
        ),
    ),
    Exercise(
        id="05.2",
        title="keep the largest",
        solution=keep_largest,
        cases=lambda: [
            (torch.tensor([0.3, 0.9, 0.1, 0.5, 0.7]), 3),
            (torch.tensor([4.0, 1.0, 3.0, 2.0, 6.0, 5.0]), 2),
        ],
        compare=tensors,
        praise="Indices that stay, sorted: that is the plan which surgery takes.",
        mistakes=(
            Mistake(
                lambda scores, count: scores.argsort()[:count].sort().values,
                "These are the smallest scores, the ones that go: keep the others.",
            ),
            Mistake(
                lambda scores, count: scores.argsort(descending=True)[:count],
                "These are the right filters, but in the order of their scores: surgery needs the"
                " indices in rising order, or the channels would change places.",
            ),
            Mistake(
                lambda scores, count: scores.argsort()[-count:],
                "These are the right filters, the smallest score first: surgery needs the indices"
                " themselves in rising order, or the channels would change places.",
            ),
            Mistake(
                lambda scores, count: scores.sort(descending=True).values[:count],
                "These are the scores themselves: give their indices.",
            ),
            Mistake(
                lambda scores, count: scores.argsort()[count:].sort().values,
                "You removed `count` filters; `count` says how many stay.",
            ),
        ),
    ),
)
