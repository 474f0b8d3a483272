"""Notebook 07's exercise on masks for single weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from course_lib.lessons.compare import tensors
from course_lib.lessons.exercise import Case, Exercise, Mistake
from course_lib.tickets import magnitude_masks

State = Mapping[str, Tensor]


def _signed(weights: State, keep: float) -> dict[str, Tensor]:
    sizes = torch.cat([weight.flatten() for weight in weights.values()])
    least = sizes.topk(round(keep * len(sizes))).values[-1]
    return {name: weight >= least for name, weight in weights.items()}


def _each_layer(weights: State, keep: float) -> dict[str, Tensor]:
    return {name: magnitude_masks({name: w}, keep)[name] for name, w in weights.items()}


def _removed_instead(weights: State, keep: float) -> dict[str, Tensor]:
    return {name: ~mask for name, mask in magnitude_masks(weights, keep).items()}


def _share_of_largest(weights: State, keep: float) -> dict[str, Tensor]:
    largest = max(float(weight.abs().max()) for weight in weights.values())
    return {name: weight.abs() >= (1 - keep) * largest for name, weight in weights.items()}


def _rounded_down(weights: State, keep: float) -> dict[str, Tensor]:
    number = sum(weight.numel() for weight in weights.values())
    return magnitude_masks(weights, int(keep * number) / number)


def _rounded_up(weights: State, keep: float) -> dict[str, Tensor]:
    number = sum(weight.numel() for weight in weights.values())
    return magnitude_masks(weights, math.ceil(keep * number) / number)


def _weights() -> Iterable[Case]:
    small = {"a": torch.tensor([0.9, -0.8, 0.1]), "b": torch.tensor([0.3, -0.7, 0.2, 0.05, 0.4])}
    draws = torch.Generator().manual_seed(7)
    large = {
        "conv": torch.randn(4, 3, 3, 3, generator=draws),
        "fc": 0.2 * torch.randn(5, 4, generator=draws),
    }
    return [(small, 0.35), (large, 0.26)]  # 2.8 of 8 weights and 33.3 of 128: to be rounded


SINGLE_WEIGHTS = Exercise(
    "07.4",
    "masks for single weights",
    magnitude_masks,
    _weights,
    (
        Mistake(
            _signed,
            "You kept the largest weights with their signs: a weight of −0.8 matters as much as"
            " one of 0.8.",
        ),
        Mistake(
            _each_layer,
            "You kept the same share of every layer: here all weights of the network are ranked"
            " together, so one layer may keep more than another.",
        ),
        Mistake(
            _removed_instead,
            "Your masks are True where weights are removed: True means that a weight stays.",
        ),
        Mistake(
            _share_of_largest,
            "You compared with a share of the largest weight: `keep` is a share of their number.",
        ),
        Mistake(
            _rounded_down,
            "You rounded the number of weights down: round() takes the nearest whole number.",
        ),
        Mistake(
            _rounded_up,
            "You rounded the number of weights up: round() takes the nearest whole number.",
        ),
    ),
    "These are the winning tickets of Frankle and Carbin.",
    compare=tensors,
)
