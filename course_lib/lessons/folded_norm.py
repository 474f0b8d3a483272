"""Exercise 08.2: a batch norm folded into its convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.lessons.compare import tensors
from course_lib.lessons.exercise import Exercise, Mistake

Answer = Callable[..., Any]


def fold_norm(
    weight: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """Weight [out, in, k, k] and bias [out] of a convolution that does its batch norm's work."""
    factor = scale / torch.sqrt(variance + eps)
    return weight * factor[:, None, None, None], shift - mean * factor


def _fold(
    factor: Callable[..., Tensor], bias: Callable[..., Tensor], columns: bool = False
) -> Answer:
    def folded(
        weight: Any, scale: Any, shift: Any, mean: Any, variance: Any, eps: Any = 1e-5
    ) -> Any:
        f = factor(scale, variance, eps)
        wide = f[None, :, None, None] if columns else f[:, None, None, None]
        return weight * wide, bias(shift, mean, f)

    return folded


def _factor(scale: Tensor, variance: Tensor, eps: float) -> Tensor:
    return scale / torch.sqrt(variance + eps)


def _norm_cases() -> list[tuple[Any, ...]]:
    def random(size: int, k: int) -> tuple[Any, ...]:
        draws = torch.Generator().manual_seed(size)
        weight = torch.randn(size, size, k, k, generator=draws)
        three = [torch.randn(size, generator=draws) for _ in range(3)]
        return (weight, *three, torch.rand(size, generator=draws) + 0.05, 1e-2)

    one = torch.tensor([[[[1.0]], [[2.0]]], [[[3.0]], [[4.0]]]])
    pairs = ([2.0, 10.0], [1.0, 1.0], [3.0, 0.5], [4.0, 25.0])
    return [(one, *map(torch.tensor, pairs), 0.0), random(4, 3)]


FOLD = Exercise(
    id="08.2",
    title="fold a batch norm into its convolution",
    solution=fold_norm,
    cases=_norm_cases,
    compare=tensors,
    mistakes=(
        Mistake(
            _fold(lambda s, v, e: s / (v + e), lambda b, m, f: b - m * f),
            "You divided by the variance: batch norm divides by its square root.",
        ),
        Mistake(
            _fold(_factor, lambda b, m, f: b),
            "Your bias forgets the running mean: it is subtracted before the scale is applied, so"
            " it is scaled as well.",
        ),
        Mistake(
            _fold(_factor, lambda b, m, f: b - m),
            "You subtract the running mean unscaled: batch norm subtracts it first, and what it"
            " multiplies afterwards has the mean in it.",
        ),
        Mistake(
            _fold(_factor, lambda b, m, f: (b - m) * f),
            "You scaled the shift as well: batch norm adds it after it has scaled, so only the mean"
            " is multiplied.",
        ),
        Mistake(
            _fold(_factor, lambda b, m, f: b + m * f),
            "You added the running mean: batch norm subtracts it.",
        ),
        Mistake(
            _fold(_factor, lambda b, m, f: b - m * f, columns=True),
            "You scaled along dimension 1, the channels that the convolution reads: the norm works"
            " on those it makes.",
        ),
        Mistake(
            _fold(lambda s, v, e: s / torch.sqrt(v), lambda b, m, f: b - m * f),
            "You left out eps, which batch norm adds to the variance.",
        ),
    ),
    praise="One convolution now does the work of two layers; inference needs nothing else.",
)
