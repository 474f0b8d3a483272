"""Notebook 08: a fair stopwatch, folded norms, the limit of a speed-up, who pays, 8-bit weights."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from course_lib.lessons.compare import tensors
from course_lib.lessons.exercise import Exercise, Mistake
from course_lib.lessons.folded_norm import FOLD
from course_lib.lessons.prediction import Question
from course_lib.lessons.stopwatch import STOPWATCH

Answer = Callable[..., Any]


def overall_speedup(milliseconds: Mapping[str, float], faster: Mapping[str, float]) -> float:
    """How many times faster the whole is when some layers are; the others stay as they are."""
    after = sum(time / faster.get(name, 1.0) for name, time in milliseconds.items())
    return sum(milliseconds.values()) / after


def _mean_of_ratios(milliseconds: Mapping[str, float], faster: Mapping[str, float]) -> float:
    return statistics.mean(faster.get(name, 1.0) for name in milliseconds)


def _weighted(milliseconds: Mapping[str, float], faster: Mapping[str, float]) -> float:
    total = sum(milliseconds.values())
    return sum(time * faster.get(name, 1.0) for name, time in milliseconds.items()) / total


def _only_known(milliseconds: Mapping[str, float], faster: Mapping[str, float]) -> float:
    known = {name: time for name, time in milliseconds.items() if name in faster}
    return overall_speedup(known, faster)


def _upside_down(milliseconds: Mapping[str, float], faster: Mapping[str, float]) -> float:
    return 1 / overall_speedup(milliseconds, faster)


def _multiplied(milliseconds: Mapping[str, float], faster: Mapping[str, float]) -> float:
    after = sum(time * faster.get(name, 1.0) for name, time in milliseconds.items())
    return sum(milliseconds.values()) / after


AMDAHL = Exercise(
    id="08.3",
    title="the speed-up of the whole",
    solution=overall_speedup,
    cases=lambda: [
        ({"conv": 6.0, "other": 4.0}, {"conv": 3.0}),
        ({"a": 2.0, "b": 2.0, "c": 4.0}, {"a": 4.0, "b": 2.0, "c": 0.5}),
    ],
    mistakes=(
        Mistake(
            _mean_of_ratios,
            "You averaged the layers' speed-ups: then a layer that takes hardly any time counts as"
            " much as the slowest one. Add up times instead.",
        ),
        Mistake(
            _weighted,
            "You weighted the speed-ups by time: but times add up, and a speed-up is what a time is"
            " divided by.",
        ),
        Mistake(
            _multiplied,
            "You multiplied the times by the speed-ups, so that faster layers take longer: divide.",
        ),
        Mistake(
            _only_known,
            "You left out the layers that aren't in `faster`: they take as long as before.",
        ),
        Mistake(
            _upside_down,
            "That is the time after divided by the time before: a speed-up is the other way round.",
        ),
    ),
    praise="Times add up and speed-ups don't: what isn't made faster sets the limit.",
)


def change_by_class(labels: Tensor, before: Tensor, after: Tensor, classes: int) -> Tensor:
    """Accuracy after minus accuracy before, for each class [classes]; labels and answers [N]."""
    return torch.stack(
        [
            (after[labels == k] == k).float().mean() - (before[labels == k] == k).float().mean()
            for k in range(classes)
        ]
    )


def _of_answers(labels: Tensor, before: Tensor, after: Tensor, classes: int) -> Tensor:
    def one(answers: Tensor, k: int) -> Tensor:
        return (labels[answers == k] == k).float().mean()

    return torch.stack([one(after, k) - one(before, k) for k in range(classes)])


def _of_all(labels: Tensor, before: Tensor, after: Tensor, classes: int) -> Tensor:
    sizes = torch.bincount(labels, minlength=classes)
    return change_by_class(labels, before, after, classes) * sizes / len(labels)


def _damage_cases() -> list[tuple[Any, ...]]:
    small = (
        torch.tensor([0, 0, 0, 0, 1, 1]),
        torch.tensor([0, 0, 0, 1, 1, 1]),
        torch.tensor([0, 0, 0, 0, 1, 0]),
        2,
    )
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 4 % 3
    noise = [torch.randint(3, (60,), generator=draws) for _ in range(2)]
    answers = [torch.where(torch.arange(60) % 5 < 3, labels, other) for other in noise]
    return [small, (labels, *answers, 3)]


DAMAGE = Exercise(
    id="08.4",
    title="who pays?",
    solution=change_by_class,
    cases=_damage_cases,
    compare=tensors,
    mistakes=(
        Mistake(
            _of_answers,
            "You grouped the images by the answer they were given: group them by their true class.",
        ),
        Mistake(
            _of_all,
            "You divided by the number of all images: a class's accuracy is a share of the images"
            " of that class.",
        ),
        Mistake(
            lambda labels, before, after, classes: change_by_class(labels, after, before, classes),
            "You subtracted the other way round: a loss should come out negative.",
        ),
        Mistake(
            lambda labels, before, after, classes: change_by_class(
                labels, before, after, classes
            ).abs(),
            "Your changes have no sign: a class that gained can't be told from one that lost.",
        ),
        Mistake(
            lambda labels, before, after, classes: (
                100 * change_by_class(labels, before, after, classes)
            ),
            "These are per cent: an accuracy is a share here, from 0 to 1.",
        ),
    ),
    praise="The mean over all images can stay where it is while one class pays.",
)


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers (int8) and a scale per filter [out], so that number × scale ≈ weight."""
    scale = weight.abs().amax(dim=(1, 2, 3)) / 127
    return torch.round(weight / scale[:, None, None, None]).to(torch.int8), scale


def _quantizer(
    largest: Callable[[Tensor], Tensor] = lambda w: w.abs().amax(dim=(1, 2, 3)),
    whole: Callable[[Tensor], Tensor] = torch.round,
    most: float = 127.0,
) -> Answer:
    def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
        scale = largest(weight) / most
        steps = whole(weight / scale[:, None, None, None])
        wrapped = (steps + 128) % 256 - 128  # as 8 bits do, on every processor
        return wrapped.to(torch.int8), scale

    return quantized


def _in_8_bits(given: Any, expected: Any) -> str | None:
    problem = tensors(given, expected)
    if problem is None and given[0].dtype != torch.int8:
        return (
            f"The whole numbers are right, but of type {given[0].dtype}, so each takes more than"
            " one byte: .to(torch.int8) makes them small."
        )
    return problem


def _weight_cases() -> list[tuple[Tensor]]:
    small = torch.tensor([[[[1.0, -2.0]]], [[[0.3, 0.1]]]])
    return [(small,), (torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1)),)]


INT8 = Exercise(
    id="08.5",
    title="a weight in 8 bits",
    solution=quantize,
    cases=_weight_cases,
    compare=_in_8_bits,
    mistakes=(
        Mistake(
            _quantizer(lambda w: w.abs().max().expand(len(w))),
            "One scale for all filters: a filter of small weights then has only a few steps left."
            " Give each filter its own.",
        ),
        Mistake(
            _quantizer(lambda w: w.amax(dim=(1, 2, 3))),
            "You took the largest weight, not the largest absolute value: a large negative weight"
            " then doesn't fit into 8 bits.",
        ),
        Mistake(
            _quantizer(whole=torch.trunc),
            "You cut the fraction off: rounding to the nearest step halves the largest error.",
        ),
        Mistake(
            _quantizer(most=128.0),
            "int8 ends at 127: with 128 steps the largest positive weight wraps round to −128.",
        ),
    ),
    praise="No weight is off by more than half a step of its own filter.",
)

EXERCISES = (STOPWATCH, FOLD, AMDAHL, DAMAGE, INT8)

QUESTIONS = (
    Question(
        id="08.p1",
        asks="times more images per second, pruned against full",
        low=0,
        high=10,
        form=".1f",
        close=0.4,
    ),
    Question(
        id="08.p2",
        asks="times more images per second, with masks against without",
        low=0,
        high=10,
        form=".1f",
        close=0.3,
    ),
    Question(
        id="08.p3",
        asks="accuracy of the full network on images with a colour cast",
        low=0,
        high=1,
        form=".0%",
        close=0.05,
    ),
)
