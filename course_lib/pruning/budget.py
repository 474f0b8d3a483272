"""Surgery to a budget: remove as little as makes the network small enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from .groups import Group, PruningError
from .select import select
from .surgery import prune


def prune_until(
    network: nn.Module,
    groups: Mapping[str, Group],
    scores: Mapping[str, Tensor],
    fits: Callable[[nn.Module], bool],
    **options: Any,
) -> tuple[nn.Module, dict[str, Tensor]]:
    """The narrower network of the smallest fraction that `fits`, and the indices that stay.

    `fits` says whether a narrower network is small enough, by parameters, multiply-accumulates or
    milliseconds; a network that fits must still fit when more is removed. `options` are `select`'s,
    apart from the fraction, which is found by halving an interval until it holds less than one
    index.
    Raises PruningError if not even the narrowest network fits.
    """
    low, high = 0.0, 1.0
    step = 1 / (1 + sum(group.size for group in groups.values()))
    best = _cut(network, groups, scores, 1 - step, options)
    if not fits(best[0]):
        raise PruningError(
            "Not even the narrowest network is small enough: ask for less, or lower floor."
        )
    while high - low > step:
        middle = (low + high) / 2
        found = _cut(network, groups, scores, middle, options)
        if fits(found[0]):
            best, high = found, middle
        else:
            low = middle
    return best


def _cut(
    network: nn.Module,
    groups: Mapping[str, Group],
    scores: Mapping[str, Tensor],
    fraction: float,
    options: Mapping[str, Any],
) -> tuple[nn.Module, dict[str, Tensor]]:
    keep = select(scores, fraction=fraction, **options)
    return prune(network, groups, keep), keep
