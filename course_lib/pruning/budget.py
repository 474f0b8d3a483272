"""Surgery to a budget: remove as little as makes the network small enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from .groups import Group, PruningError
from .select import CAP, select
from .surgery import prune

HALF, HALVINGS = 0.5, 20  # layers of 512 filters lose one at fractions 2⁻¹⁹ apart, if not more


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
    apart from the fraction, which is found to a millionth. What fits as it is stays whole.
    Raises PruningError if not even the narrowest network fits.
    """

    def cut(fraction: float) -> tuple[nn.Module, dict[str, Tensor]]:
        keep = select(scores, fraction=fraction, **options)
        return prune(network, groups, keep), keep

    most = 1 - HALF**HALVINGS
    if options.get("scope") == "network":
        most = min(most, options.get("cap", CAP))
    whole, best = cut(0.0), cut(most)
    if fits(whole[0]):
        return whole
    if not fits(best[0]):
        raise PruningError(
            "Not even the narrowest network is small enough: ask for less, lower floor or "
            "multiple, or, across the network, raise cap."
        )
    low, high = 0.0, most
    for _ in range(HALVINGS):
        middle = HALF * (low + high)
        found = cut(middle)
        if fits(found[0]):
            best, high = found, middle
        else:
            low = middle
    return best
