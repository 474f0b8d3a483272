"""Lottery tickets: what survives pruning, put back to the weights it had when training began.

Frankle & Carbin 2019, "The Lottery Ticket Hypothesis", arXiv 1803.03635, remove single weights:
they are set to zero and held there. The article speaks of filters, which are cut out. Going back
not to the start but to early training: Frankle et al. 2019, arXiv 1903.01611.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
State = dict[str, Tensor]
Masks = dict[str, Tensor]


def remember(network: nn.Module) -> State:
    """The network's state as it is now: copies, since training changes the tensors themselves."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def rewound(network: Network, state: Mapping[str, Tensor]) -> Network:
    """A new network like this one, with a state that was remembered."""
    copied = copy.deepcopy(network)
    copied.load_state_dict(dict(state))
    return copied


def in_first_network(first: Mapping[str, Tensor], then: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The indices that survive two rounds, as the first network numbers them.

    first, then: {group name: kept indices}; those of `then` count the survivors of `first`.
    """
    return {name: kept[then[name]] if name in then else kept for name, kept in first.items()}


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """The weights of convolutions and linear layers, by their names in the state dict. Biases and
    batch norms are few and stay.
    """
    layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    return {
        f"{name}.weight": layer.weight.detach()
        for name, layer in network.named_modules()
        if isinstance(layer, layers)
    }


def magnitude_masks(weights: Mapping[str, Tensor], keep: float) -> Masks:
    """True for the share `keep` of all weights together that is largest in magnitude.

    Returns {name: boolean tensor of the weight's shape}. Weights that are already zero come last.
    """
    sizes = torch.cat([weight.abs().flatten() for weight in weights.values()])
    winners = torch.zeros(len(sizes), dtype=torch.bool, device=sizes.device)
    winners[sizes.topk(round(keep * len(sizes))).indices] = True
    parts = winners.split([weight.numel() for weight in weights.values()])
    return {
        name: part.view_as(weight)
        for (name, weight), part in zip(weights.items(), parts, strict=True)
    }


@torch.no_grad()
def apply_masks(network: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set to zero, in place, every weight whose mask is False."""
    for name, mask in masks.items():
        weight = network.get_parameter(name)
        weight.mul_(mask.to(weight.device))  # a mask may have been made before the network moved


def held(
    losses: Iterable[Tensor], network: nn.Module, masks: Mapping[str, Tensor]
) -> Iterator[Tensor]:
    """Training that keeps masked weights at zero: put around `training.train(network, …)`.

    Without it the first step would give the removed weights a gradient, and they'd grow back.
    """
    for loss in losses:
        apply_masks(network, masks)
        yield loss


def equal_compute_batches(phases: Sequence[tuple[int, int]], macs: int) -> int:
    """How many batches a network of `macs` multiply-accumulates per image can be trained for what
    the phases cost, each of (batches, macs per image); rounded down.
    """
    return sum(batches * cost for batches, cost in phases) // macs
