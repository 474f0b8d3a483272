"""What a group is, and whether groups are a network's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .tracing import PruningError


@dataclass(frozen=True)
class Group:
    """Filters that can only be removed together, index by index.

    `size`: how many indices it has. `producers`: the convolutions (or linear layers) whose i-th
    filter makes channel i. `norms`: the batch norms on those channels. `readers`: (layer, columns),
    the layers with weights that read them, and how many consecutive input columns of that layer
    belong to each index (1, or H·W after a flatten). `grouped`: the grouped convolutions in
    between, depthwise ones among them. `channels`: how many consecutive channels, and so filters of
    each producer, an index stands for: as many as one group of those convolutions has, mostly 1.
    """

    name: str
    size: int
    producers: tuple[str, ...]
    norms: tuple[str, ...]
    readers: tuple[tuple[str, int], ...]
    grouped: tuple[str, ...] = ()
    channels: int = 1

    @property
    def makers(self) -> tuple[str, ...]:
        """The layers that have filters of every index: producers and grouped convolutions."""
        return self.producers + self.grouped


def require_theirs(network: nn.Module, groups: Iterable[Group]) -> None:
    """Raise PruningError, naming the layer, unless the groups are this network's as it is now."""
    for group in groups:
        width = group.size * group.channels
        for maker in group.makers:
            filters = len(_weight(network, maker))
            if filters != width:
                raise PruningError(
                    f"{maker} has {filters} filters, its group {width}: "
                    "call find_groups again after pruning."
                )
        for reader, columns in group.readers:
            if _weight(network, reader).shape[1] != group.size * columns:
                raise PruningError(
                    f"{reader} doesn't read the {group.size} channels of {group.name}: "
                    "call find_groups again after pruning."
                )


def _weight(network: nn.Module, name: str) -> Tensor:
    try:
        layer: Any = network.get_submodule(name)
        return layer.weight
    except AttributeError:
        raise PruningError(f"There is no {name} here: the groups are another network's.") from None
