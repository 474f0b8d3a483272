"""The narrower network, and its twin: the wide network with the same channels set to zero.

The theorem the course stands on: both compute the same, when the channels are zeroed *at the input
of every layer with weights that reads them*. It holds in training mode as well, since batch norm
works on every channel by itself, and after an optimiser's step, since a channel that is read as
zero sends no gradient to anything that is kept.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .group import Group, require_theirs
from .tracing import PruningError

NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")


def check_keep(network: nn.Module, groups: Mapping[str, Group], keep: Mapping[str, Tensor]) -> None:
    """Raise PruningError, naming the group, unless `keep` is a plan for this network's groups."""
    for name, kept in keep.items():
        if name not in groups:
            its = [group.name for group in groups.values() if name in group.makers]
            raise PruningError(
                f"{name} is no group, but belongs to {its[0]}."
                if its
                else f"There is no group {name!r}: the groups are {', '.join(groups) or 'none'}."
            )
        size = groups[name].size
        if (
            not isinstance(kept, Tensor)
            or kept.dtype != torch.long
            or kept.dim() != 1
            or not len(kept)
        ):
            raise PruningError(
                f"keep[{name!r}] must be a 1-D tensor of at least one integer index."
            )
        if kept[0] < 0 or kept[-1] >= size or (kept.diff() <= 0).any():
            raise PruningError(
                f"keep[{name!r}] must rise from 0 or more to {size - 1} or less, no index twice."
            )
    require_theirs(network, [groups[name] for name in keep])


def columns_of(kept: Tensor, columns: int) -> Tensor:
    """What belongs to the kept indices: [3] with 4 columns each → [12, 13, 14, 15]."""
    return (kept[:, None] * columns + torch.arange(columns, device=kept.device)).flatten()


def kept_slices(
    groups: Mapping[str, Group], keep: Mapping[str, Tensor]
) -> dict[str, dict[int, Tensor]]:
    """What stays of each tensor that shrinks: {name in the state dict: {dimension: indices}}."""
    slices: dict[str, dict[int, Tensor]] = {}
    for name, kept in keep.items():
        group = groups[name]
        channels = columns_of(kept, group.channels)
        for layer in group.makers:
            slices.setdefault(f"{layer}.weight", {})[0] = channels
            slices.setdefault(f"{layer}.bias", {})[0] = channels
        for norm in group.norms:
            for tensor in NORM_TENSORS:
                slices.setdefault(f"{norm}.{tensor}", {})[0] = channels
        for reader, columns in group.readers:
            slices.setdefault(f"{reader}.weight", {})[1] = columns_of(kept, columns)
    return slices


def take(tensor: Tensor, slices: Mapping[int, Tensor]) -> Tensor:
    """The part of a tensor that stays, sliced along each dimension in `slices`. What is
    channels-last stays so.
    """
    part = tensor
    for dimension, kept in slices.items():
        part = part.index_select(dimension, kept.to(tensor.device))
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return part.contiguous(memory_format=torch.channels_last) if last else part


def as_laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """A copy of an optimiser's value, its numbers in memory in the order of the parameter's.

    Fused optimisers walk through both in this order and don't look at strides.
    """
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


@torch.no_grad()
def prune(network: nn.Module, groups: Mapping[str, Group], keep: Mapping[str, Tensor]) -> nn.Module:
    """Return a new network without the filters that `keep` leaves out; the given one is untouched.

    `keep`: {group name: sorted 1-D long tensor of the indices that stay}; a group that isn't named
    stays whole.
    Raises PruningError, naming the group, for indices that are empty, unsorted, repeated or out of
    range; and inside `with masked(…)`.
    """
    check_keep(network, groups, keep)
    hooks = (hook for layer in network.modules() for hook in layer._forward_pre_hooks.values())
    if any(isinstance(hook, _Zero) for hook in hooks):  # a copy would keep them for ever
        raise PruningError(
            "A network can't be pruned inside `with masked(…)`, whose zeros its copy would keep: "
            "call prune after that block."
        )
    copies: dict[int, Tensor] = {}  # so that what goes isn't copied first
    for name, slices in kept_slices(groups, keep).items():
        path, _, attribute = name.rpartition(".")
        tensor = getattr(network.get_submodule(path), attribute)
        if tensor is None:  # no bias, no affine part, no running statistics
            continue
        part = take(tensor, slices)
        learned = isinstance(tensor, nn.Parameter)
        copies[id(tensor)] = nn.Parameter(part, tensor.requires_grad) if learned else part
    for layer in network.modules():  # what a mask or a weight norm computed has a history
        for value in vars(layer).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                copies[id(value)] = value.detach().clone()
    narrow = copy.deepcopy(network, copies)  # without gradients: a parameter's copy has none
    if narrow.training != network.training:  # torchvision's feature extractors forget it
        narrow.train(network.training)
    for name in keep:
        _set_widths(narrow, groups[name])
    return narrow


def _set_widths(network: nn.Module, group: Group) -> None:
    """Make the layers' own records of their widths agree with their weights."""
    for name in (*group.producers, *(reader for reader, _ in group.readers)):
        layer: Any = network.get_submodule(name)
        width_out, width_in = layer.weight.shape[:2]
        if isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = width_out, width_in
        else:
            layer.out_channels, layer.in_channels = width_out, width_in
    width: Any = len(network.get_submodule(group.producers[0]).weight)  # type: ignore[arg-type]
    for name in group.norms:
        network.get_submodule(name).num_features = width
    for name in group.grouped:
        layer = network.get_submodule(name)
        layer.in_channels = layer.out_channels = width
        layer.groups = width // layer.weight.shape[1]


@contextmanager
def masked(
    network: nn.Module, groups: Mapping[str, Group], keep: Mapping[str, Tensor]
) -> Iterator[nn.Module]:
    """Inside the `with`, the wide network reads the channels that `keep` leaves out as zero.

    The zeros are put at the input of every reader, not behind the producer: batch norm would turn a
    zero into its bias.
    """
    check_keep(network, groups, keep)
    handles = []
    try:
        for name, kept in keep.items():
            for reader, columns in groups[name].readers:
                gone = torch.ones(groups[name].size * columns, dtype=torch.bool)
                gone[columns_of(kept.cpu(), columns)] = False
                layer = network.get_submodule(reader)
                handles.append(layer.register_forward_pre_hook(_Zero(gone), with_kwargs=True))
        yield network
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class _Zero:
    """A hook before a layer: its input with the channels of `gone` (a mask of them) at zero."""

    gone: Tensor

    def __call__(
        self, _: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]
    ) -> tuple[tuple[Tensor], dict[str, Tensor]]:
        (x,) = (*inputs, *named.values())
        mask = self.gone.to(x.device).view(1, -1, *[1] * (x.dim() - 2))
        return (x.masked_fill(mask, 0),), {}


def carry_optimizer(
    optimizer: torch.optim.Optimizer,
    network: nn.Module,
    narrow: nn.Module,
    groups: Mapping[str, Group],
    keep: Mapping[str, Tensor],
) -> torch.optim.Optimizer:
    """A new optimiser for the narrow network that goes on where the wide one's stopped.

    Momentum and other state of a parameter's shape is sliced along every dimension that was pruned.
    An optimiser that still held the old parameters would go on training weights that no network
    uses. Bring `narrow` to its device and memory format first. A learning-rate schedule still
    drives the old optimiser: to go on with it, set its `optimizer` to the new one; to begin anew,
    set `lr` of each of `param_groups`, take out `initial_lr` and make a schedule. Hooks aren't
    carried.
    Raises PruningError for a parameter that isn't the network's, for a `narrow` that isn't what
    this plan makes of it, for state of another shape than its parameter's (Adafactor's, for one),
    and for an optimiser that takes more than parameters to be made.
    """
    check_keep(network, groups, keep)
    names: dict[Tensor, str] = {p: name for name, p in network.named_parameters()}
    new_parameters = dict(narrow.named_parameters())
    slices = kept_slices(groups, keep)
    for parameter, name in names.items():
        left = take(parameter.to("meta"), slices.get(name, {})).shape
        if name not in new_parameters or new_parameters[name].shape != left:
            raise PruningError(
                f"{name} of the narrow network isn't what this plan leaves of it: "
                "give the one that prune made with the same groups and indices."
            )
    param_groups = []
    for group in optimizer.param_groups:
        if any(parameter not in names for parameter in group["params"]):
            raise PruningError("The optimiser holds parameters that aren't the network's.")
        narrowed = [new_parameters[names[parameter]] for parameter in group["params"]]
        param_groups.append({**group, "params": narrowed})
    carried = _of_its_kind(optimizer, param_groups)
    for parameter, state in optimizer.state.items():
        name = names[parameter]
        new_state = carried.state[new_parameters[name]]
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                new_state[key] = as_laid_out(
                    take(value, slices.get(name, {})), new_parameters[name].detach()
                )
            elif isinstance(value, Tensor) and value.dim() > 0:
                raise PruningError(
                    f"The optimiser's {key} of {name} isn't of its shape and can't be carried "
                    "across: use SGD or Adam, or start a new optimiser."
                )
            else:  # a number, such as Adam's count of steps
                new_state[key] = copy.deepcopy(value)
    return carried


def _of_its_kind(
    optimizer: torch.optim.Optimizer, param_groups: list[dict[str, Any]]
) -> torch.optim.Optimizer:
    """A new optimiser with the settings of another one, also those it keeps beside its groups."""
    try:
        new = type(optimizer)(param_groups)  # type: ignore[call-arg]
    except TypeError as error:
        raise PruningError(
            f"{type(optimizer).__name__} can't be made of parameters alone ({error}): "
            "make a new one for the narrow network."
        ) from error
    for key, value in vars(optimizer).items():
        if isinstance(value, bool | int | float | str):
            setattr(new, key, value)
    new.defaults = dict(optimizer.defaults)  # for a group that is added later
    return new
