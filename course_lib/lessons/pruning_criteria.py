"""Notebook 05: twins, zeros, gradients, critical filters; the rest is in filter_sizes.py and
own_criterion.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.lessons.compare import tensors
from course_lib.lessons.exercise import Exercise, Mistake
from course_lib.lessons.filter_sizes import SIZES, numbers
from course_lib.lessons.own_criterion import OWN
from course_lib.lessons.prediction import Question


def without_twins(weight: Tensor, similarity: float) -> Tensor:
    """Which filters stay when each goes that is a twin of an earlier one."""
    directions = F.normalize(weight.flatten(1), dim=1)
    twins = directions @ directions.T > similarity
    has_earlier_twin = twins.tril(-1).any(dim=1)
    return (~has_earlier_twin).nonzero().flatten()


def _both_twins_go(weight: Tensor, similarity: float) -> Tensor:
    directions = F.normalize(weight.flatten(1), dim=1)
    twins = directions @ directions.T > similarity
    twins.fill_diagonal_(False)
    has_twin = twins.any(dim=1)
    return (~has_twin).nonzero().flatten()


def _later_stays(weight: Tensor, similarity: float) -> Tensor:
    directions = F.normalize(weight.flatten(1), dim=1)
    twins = directions @ directions.T > similarity
    return (~twins.triu(1).any(dim=1)).nonzero().flatten()


def _with_itself(weight: Tensor, similarity: float) -> Tensor:
    directions = F.normalize(weight.flatten(1), dim=1)
    twins = directions @ directions.T > similarity
    return (~twins.tril().any(dim=1)).nonzero().flatten()


def _not_normalised(weight: Tensor, similarity: float) -> Tensor:
    vectors = weight.flatten(1)
    twins = vectors @ vectors.T > similarity
    return (~twins.tril(-1).any(dim=1)).nonzero().flatten()


def _opposites_too(weight: Tensor, similarity: float) -> Tensor:
    directions = F.normalize(weight.flatten(1), dim=1)
    twins = (directions @ directions.T).abs() > similarity
    return (~twins.tril(-1).any(dim=1)).nonzero().flatten()


def zero_share(channels: Tensor) -> Tensor:
    """APoZ: the share of zeros in each channel; channels of shape [images, channels, h, w]."""
    return (channels == 0).double().mean(dim=(0, 2, 3))


def taylor_of(channels: Tensor, gradients: Tensor) -> Tensor:
    """The mean over images of |Σ over positions of channel · gradient|, both [N, C, h, w]."""
    return (channels * gradients).sum(dim=(2, 3)).abs().mean(dim=0)


def critical_filters(right: Tensor, k: int) -> Tensor:
    """The filters that are among the k most critical of at least one class, in rising order;
    right: [filters, classes], the right answers of each class without that filter."""
    return right.argsort(dim=0, stable=True)[:k].unique()


def _pairs(*vectors: tuple[float, ...]) -> Tensor:
    return torch.tensor(vectors, dtype=torch.float32).view(len(vectors), 2, 1, 1)


def _after_relu() -> list[tuple[Tensor]]:
    small = torch.tensor([[0.0, 2.0, 0.0, 0.0], [1.0, 3.0, 0.0, 5.0]]).view(1, 2, 2, 2)
    return [(small,), (numbers(3, 4, 2, 2).relu(),)]


def _activations() -> list[tuple[Tensor, Tensor]]:
    channels = torch.tensor([[1.0, 2.0], [3.0, 1.0]]).view(2, 1, 1, 2)
    gradients = torch.tensor([[2.0, -3.0], [1.0, 2.0]]).view(2, 1, 1, 2)
    return [(channels, gradients), (numbers(3, 4, 2, 2).relu(), numbers(3, 4, 2, 2).flip(0))]


def _shared_by_all(right: Tensor, k: int) -> Tensor:
    top = right.argsort(dim=0, stable=True)[:k]
    everywhere = [i for i in range(len(right)) if (top == i).any(dim=0).all()]
    return torch.tensor(everywhere, dtype=torch.long)


_LOOKS = (
    Exercise(
        id="05.3",
        title="bug hunt: both twins are gone",
        solution=without_twins,
        cases=lambda: [
            (_pairs((1, 0), (2, 0), (0, 1)), 0.95),
            (_pairs((0, 3), (3, 3), (1, 1), (-1, -1)), 0.95),
            (torch.tensor([[1.0, 0.0], [0.6, 0.8], [2.0, 0.0]]).view(3, 1, 1, 2), 0.95),
        ],
        compare=tensors,
        praise="Of each pair one filter stays: redundant means that the other one is enough.",
        handed_out=Mistake(
            _both_twins_go,
            "Filter 1 is twice filter 0, so one of the two is enough; but both are missing from"
            " what stays.",
        ),
        mistakes=(
            Mistake(
                _later_stays,
                "One of each pair stays now, but it is the later one: keep the earlier one.",
            ),
            Mistake(
                _with_itself,
                "Nothing stays: every filter counts as its own twin, since the diagonal is in.",
            ),
            Mistake(
                _not_normalised,
                "Long filters look alike to an inner product whatever their direction: the cosine"
                " needs directions of length 1.",
            ),
            Mistake(
                _opposites_too,
                "A filter and its negative were called twins: their outputs are opposite, so"
                " after ReLU one is zero wherever the other isn't.",
            ),
        ),
    ),
    Exercise(
        id="05.4",
        title="APoZ",
        solution=zero_share,
        cases=_after_relu,
        compare=tensors,
        praise="High means: hardly ever active. Hu et al. remove channels with high APoZ.",
        mistakes=(
            Mistake(
                lambda channels: (channels != 0).double().mean(dim=(0, 2, 3)),
                "This is the share that is not zero: APoZ counts the zeros.",
            ),
            Mistake(
                lambda channels: (channels == 0).double().mean(dim=0),
                "You averaged over images only: average over the positions (the last two"
                " dimensions) too.",
            ),
            Mistake(
                lambda channels: (channels == 0).double().mean(dim=(2, 3)),
                "You averaged over positions only: average over the images (the first dimension)"
                " too.",
            ),
            Mistake(
                lambda channels: channels.mean(dim=(0, 2, 3)),
                "This is the mean activation: compare with zero before you average.",
            ),
        ),
    ),
    Exercise(
        id="05.5",
        title="Taylor",
        solution=taylor_of,
        cases=_activations,
        compare=tensors,
        praise="One backward pass scores every channel of the network at once.",
        mistakes=(
            Mistake(
                lambda channels, gradients: (
                    (channels * gradients).abs().sum(dim=(2, 3)).mean(dim=0)
                ),
                "The absolute value comes too early: a channel goes as a whole, so what its"
                " positions contribute may cancel.",
            ),
            Mistake(
                lambda channels, gradients: (
                    (channels * gradients).sum(dim=(2, 3)).mean(dim=0).abs()
                ),
                "The absolute value comes too late: gains on one image cancelled losses on"
                " another.",
            ),
            Mistake(
                lambda channels, gradients: (channels * gradients).sum(dim=(2, 3)).mean(dim=0),
                "There is no absolute value: a channel whose removal would change the loss a lot,"
                " downwards, ranks as the least important.",
            ),
            Mistake(
                lambda channels, gradients: (
                    (channels * gradients).mean(dim=(2, 3)).abs().mean(dim=0)
                ),
                "You took the mean over positions: that ranks a layer as the sum does, but the"
                " change of the loss is the sum.",
            ),
            Mistake(
                lambda channels, gradients: (channels * gradients).sum(dim=(2, 3)).abs().sum(dim=0),
                "You added the images up: take their mean, or the scores grow with the number of"
                " images.",
            ),
            Mistake(
                lambda channels, gradients: gradients.sum(dim=(2, 3)).abs().mean(dim=0),
                "These are gradients alone: a channel goes from its value to zero, so the change"
                " is gradient times value.",
            ),
        ),
    ),
    Exercise(
        id="05.6",
        title="critical filters",
        solution=critical_filters,
        cases=lambda: [
            (torch.tensor([[9, 4], [5, 9], [8, 8], [7, 6]]), 1),
            (torch.tensor([[9, 4, 3], [5, 9, 2], [8, 8, 9], [7, 6, 8], [6, 7, 7]]), 2),
            (torch.tensor([[5, 5], [5, 4], [5, 5]]), 1),
            (torch.full((20, 2), 9), 2),
        ],
        compare=tensors,
        praise="A filter that many classes need is counted once: that is the overlap.",
        mistakes=(
            Mistake(
                lambda right, k: right.argsort(dim=0, descending=True)[:k].unique(),
                "These are the filters that are missed least: the most critical filter is the one"
                " without which the fewest images are right.",
            ),
            Mistake(
                lambda right, k: right.sum(dim=1).argsort()[:k].sort().values,
                "You ranked the filters once, over all classes together: each class has its own k.",
            ),
            Mistake(
                lambda right, k: right.argsort(dim=1)[:, :k].unique(),
                "You ranked the classes for each filter: rank the filters (dimension 0) for each"
                " class.",
            ),
            Mistake(
                lambda right, k: (
                    (right <= right.sort(dim=0).values[k - 1]).any(dim=1).nonzero().flatten()
                ),
                "Where several filters have the same count you took all of them: each class has k,"
                " and of equal counts the lower index comes first.",
            ),
            Mistake(
                lambda right, k: right.argsort(dim=0, stable=True)[:k].flatten(),
                "These are the filters class by class, in no order and some twice: each once, in"
                " rising order.",
            ),
            Mistake(
                _shared_by_all,
                "These are critical for every class at once: one class is enough.",
            ),
        ),
    ),
)

EXERCISES = (*SIZES, *_LOOKS, *OWN)

QUESTIONS = (
    Question(
        id="05.p1",
        asks="validation accuracy without the 10 % of filters that are smallest in the network",
    ),
    Question(
        id="05.p2",
        asks="validation accuracy of the randomly pruned network, fine-tuned",
        close=0.02,
        form=".1%",
    ),
    Question(
        id="05.p3",
        asks="rank correlation of L1 and Taylor, mean over the layers",
        low=-1,
        form=".2f",
        close=0.1,
    ),
)
