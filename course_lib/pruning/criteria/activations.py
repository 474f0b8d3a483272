"""Criteria that look at what the filters answer to images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..groups import Group
from ..tracing import evaluating
from .gates import images_of, reading
from .weights import Batches, Scores


def apoz(
    network: nn.Module,
    groups: Mapping[str, Group],
    batches: Batches | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Scores:
    """One minus the average percentage of zeros: how much of what is read of a channel isn't zero.

    Hu et al. 2016, "Network Trimming", arXiv 1607.03250. They count behind the activation and
    remove channels with many zeros; here it is counted on what the readers read (so behind a
    pooling in between, and over all readers together), as one minus it, so that small means remove
    first. A number from 0 to 1; all are 1 behind an activation that is never zero, such as the
    sigmoid.
    Raises PruningError without images.
    """
    alive = {name: torch.zeros(group.size, dtype=torch.long) for name, group in groups.items()}
    values = dict.fromkeys(groups, 0)  # per index

    def count(name: str, columns: int, x: Tensor) -> None:
        channels = (x != 0).unflatten(1, (groups[name].size, columns))
        others = [dimension for dimension in range(channels.dim()) if dimension != 1]
        alive[name] += channels.sum(others).cpu()
        values[name] += channels[:, 0].numel()

    with evaluating(network), reading(network, groups, count), torch.no_grad():
        for images, _ in images_of(network, batches, "apoz"):
            network(images)
    return {name: alive[name].double() / values[name] for name in groups}
