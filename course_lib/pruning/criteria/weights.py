"""Criteria that look at each filter's weights alone; and the random control.

Cheap, and the same whatever the network is used on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from ..group import Group, require_theirs
from ..tracing import PruningError

Scores = dict[str, Tensor]
Criterion = Callable[..., Scores]
Batches = Iterable[tuple[Tensor, Tensor]]


def filters_of(network: nn.Module, group: Group) -> Tensor:
    """The weights behind each index, [size, weights]: its filters of all layers, end to end."""
    require_theirs(network, [group])
    weights = [network.get_submodule(name).weight for name in group.makers]
    return torch.cat([weight.detach().reshape(group.size, -1) for weight in weights], dim=1)  # type: ignore


def _norm_criterion(order: float) -> Criterion:
    def score(
        network: nn.Module,
        groups: Mapping[str, Group],
        batches: Batches | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Scores:
        return {
            name: torch.linalg.vector_norm(filters_of(network, group), order, dim=1).cpu()
            for name, group in groups.items()
        }

    score.__name__ = score.__qualname__ = f"l{order:g}"
    score.__doc__ = (
        f"The {order:g}-norm of the weights behind each index, all its filters' together."
    )
    return score


l1 = _norm_criterion(1)  # Li et al. 2016, arXiv 1608.08710
l2 = _norm_criterion(2)  # Li et al. find no noticeable difference from L1
linf = _norm_criterion(float("inf"))  # the article's "max norm"


def bn_scale(
    network: nn.Module,
    groups: Mapping[str, Group],
    batches: Batches | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Scores:
    """The sum of |γ| over the batch norms of each index.

    Liu et al. 2017, "Network Slimming", arXiv 1708.06519.

    Raises PruningError for a group without a batch norm that scales.
    """
    require_theirs(network, groups.values())
    scores = {}
    for name, group in groups.items():
        scales = [network.get_submodule(norm).weight for norm in group.norms]
        scales = [scale for scale in scales if scale is not None]
        if not scales:
            raise PruningError(f"{name} has no batch norm with a scale: choose l1 instead.")
        total = torch.stack([s.detach().abs() for s in scales]).sum(0).cpu()  # type: ignore
        scores[name] = total.reshape(group.size, -1).sum(1)
    return scores


def random(
    network: nn.Module,
    groups: Mapping[str, Group],
    batches: Batches | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Scores:
    """Uniform in [0, 1): the control that every other criterion must beat.

    Mittal et al. 2018, arXiv 1801.10447.
    """
    require_theirs(network, groups.values())
    return {name: torch.rand(group.size, generator=generator) for name, group in groups.items()}
