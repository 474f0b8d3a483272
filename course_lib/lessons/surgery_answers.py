"""Right answers to the exercises of notebook 04, and typical wrong ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.pruning import Group, carry_optimizer, prune

Answer = Callable[..., Any]


def in_place(answer: Answer) -> Answer:
    """The answer without its copies: the layers or blocks that it is given become the result."""

    def wrong(*given: Any) -> Any:
        made = answer(*given)
        for old, new in zip(given, made if isinstance(made, tuple) else (made,), strict=False):
            vars(old).update(vars(new))
        return given[: len(made)] if isinstance(made, tuple) else given[0]

    return wrong


def single(answer: Answer) -> Answer:
    """The answer in float32, as layers are that were made anew."""
    return lambda *given: answer(*given).float()


def cut_conv(conv: nn.Conv2d, outs: Tensor | None = None, ins: Tensor | None = None) -> nn.Conv2d:
    """A new convolution with the filters `outs` and the input channels `ins` only; None: all."""
    narrow = copy.deepcopy(conv)
    weight = conv.weight.detach().clone()
    if outs is not None:
        weight = weight[outs]
        if conv.bias is not None:
            narrow.bias = nn.Parameter(conv.bias.detach()[outs])
    if ins is not None:
        weight = weight[:, ins]
    narrow.weight = nn.Parameter(weight)
    narrow.out_channels, narrow.in_channels = weight.shape[:2]
    return narrow


def cut_swapped(conv: nn.Conv2d, outs: Any = None, ins: Any = None) -> nn.Conv2d:
    """Filters and input channels the wrong way round."""
    return cut_conv(conv, ins, outs)


def cut_outs_only(conv: nn.Conv2d, outs: Any = None, ins: Any = None) -> nn.Conv2d:
    """The filters alone."""
    return cut_conv(conv, outs)


def cut_bias_wide(conv: nn.Conv2d, outs: Any = None, ins: Any = None) -> nn.Conv2d:
    """All but the bias."""
    narrow = cut_conv(conv, outs, ins)
    narrow.bias = copy.deepcopy(conv.bias)
    return narrow


def cut_removed(conv: nn.Conv2d, outs: Any = None, ins: Any = None) -> nn.Conv2d:
    """What was to stay is removed."""

    def others(kept: Any, size: int) -> Any:
        return None if kept is None else [i for i in range(size) if i not in kept.tolist()]

    return cut_conv(conv, others(outs, conv.out_channels), others(ins, conv.in_channels))


def cut_bare(conv: nn.Conv2d, outs: Any = None, ins: Any = None) -> nn.Conv2d:
    """The right tensors in a convolution that is new in all else."""
    narrow = cut_conv(conv, outs, ins)
    narrow.stride, narrow.padding = (1, 1), (0, 0)
    return narrow


def cut_records_stale(conv: nn.Conv2d, outs: Any = None, ins: Any = None) -> nn.Conv2d:
    """The tensors without the records."""
    narrow = cut_conv(conv, outs, ins)
    narrow.out_channels, narrow.in_channels = conv.out_channels, conv.in_channels
    return narrow


def cut_norm(norm: nn.BatchNorm2d, kept: Tensor) -> nn.BatchNorm2d:
    """A new batch norm for the channels `kept` only."""
    narrow = copy.deepcopy(norm)
    narrow.weight = nn.Parameter(norm.weight.detach()[kept])
    narrow.bias = nn.Parameter(norm.bias.detach()[kept])
    narrow.running_mean = norm.running_mean[kept]  # type: ignore[index]
    narrow.running_var = norm.running_var[kept]  # type: ignore[index]
    narrow.num_features = len(kept)
    return narrow


def fresh_norm(norm: nn.BatchNorm2d, kept: Tensor) -> nn.BatchNorm2d:
    """A new batch norm."""
    return nn.BatchNorm2d(len(kept))


def norm_rest_fresh(norm: nn.BatchNorm2d, kept: Tensor) -> nn.BatchNorm2d:
    """The right four tensors in a batch norm that is new in all else."""
    narrow, right = fresh_norm(norm, kept), cut_norm(norm, kept)
    narrow.weight, narrow.bias = right.weight, right.bias
    narrow.running_mean, narrow.running_var = right.running_mean, right.running_var
    return narrow


def first_norm(norm: nn.BatchNorm2d, kept: Tensor) -> nn.BatchNorm2d:
    """The first channels instead of the kept ones."""
    return cut_norm(norm, torch.arange(len(kept)))


def norm_statistics_wide(norm: nn.BatchNorm2d, kept: Tensor) -> nn.BatchNorm2d:
    """The parameters without the statistics."""
    narrow = cut_norm(norm, kept)
    narrow.running_mean, narrow.running_var = norm.running_mean, norm.running_var
    return narrow


def norm_statistics_learned(norm: nn.BatchNorm2d, kept: Tensor) -> nn.BatchNorm2d:
    """The statistics as parameters."""
    narrow = cut_norm(norm, kept)
    for name in ("running_mean", "running_var"):
        setattr(narrow, name, nn.Parameter(getattr(narrow, name)))
    return narrow


def norm_records_stale(norm: nn.BatchNorm2d, kept: Tensor) -> nn.BatchNorm2d:
    """The tensors without the record."""
    narrow = cut_norm(norm, kept)
    narrow.num_features = norm.num_features
    return narrow


def prune_conv1(block: nn.Module, kept: Tensor, norm: Answer = cut_norm) -> nn.Module:
    """A new block whose conv1 has the filters `kept` only."""
    narrow: Any = copy.deepcopy(block)
    narrow.conv1 = cut_conv(narrow.conv1, outs=kept)
    narrow.bn1 = norm(narrow.bn1, kept)
    narrow.conv2 = cut_conv(narrow.conv2, ins=kept)
    return narrow


def norm_left_wide(block: nn.Module, kept: Tensor) -> nn.Module:
    """The convolutions without the norm between them."""
    return prune_conv1(block, kept, lambda norm, _: norm)


def zero_channels(x: Tensor, kept: Tensor) -> Tensor:
    """Images [N, C, H, W] in which every channel that isn't in `kept` is zero."""
    mask = torch.zeros(x.shape[1], dtype=x.dtype)
    mask[kept] = 1
    return x * mask.view(1, -1, 1, 1)


def zero_kept(x: Tensor, kept: Tensor) -> Tensor:
    """Zeros where there should be none."""
    return x - zero_channels(x, kept)


def zero_in_place(x: Tensor, kept: Tensor) -> Tensor:
    """Right, and the input is changed."""
    return x.copy_(zero_channels(x, kept))


def zero_images(x: Tensor, kept: Tensor) -> Tensor:
    """Zeros along the batch."""
    mask = torch.zeros(len(x), dtype=x.dtype)
    mask[kept] = 1
    return x * mask.view(-1, 1, 1, 1)


def prune_conv2(
    block: nn.Module, following: nn.Module, kept: Tensor
) -> tuple[nn.Module, nn.Module]:
    """Both blocks, new: the first makes the channels `kept` only, and the second reads those."""
    return _conv2(block, following, kept, kept)


def _conv2(
    block: nn.Module,
    following: nn.Module,
    kept: Tensor,
    on_shortcut: Tensor,
    skip: tuple[str, ...] = (),
) -> tuple[Any, Any]:
    """The surgery with a choice of its own on the shortcut, or without one of its steps."""
    narrow: Any = copy.deepcopy(block)
    reader: Any = copy.deepcopy(following)
    narrow.conv2 = cut_conv(narrow.conv2, outs=kept)
    if "norm" not in skip:
        narrow.bn2 = cut_norm(narrow.bn2, kept)
    if "shortcut" not in skip:
        narrow.shortcut[0] = cut_conv(narrow.shortcut[0], outs=on_shortcut)
        if "shortcut norm" not in skip:
            narrow.shortcut[1] = cut_norm(narrow.shortcut[1], on_shortcut)
    if "reader" not in skip:
        reader.conv1 = cut_conv(reader.conv1, ins=kept)
    if "next shortcut" not in skip:
        reader.shortcut[0] = cut_conv(reader.shortcut[0], ins=kept)
    return narrow, reader


def conv2_without(*steps: str) -> Answer:
    """The surgery without some of its steps."""

    def wrong(block: nn.Module, following: nn.Module, kept: Tensor) -> Any:
        return _conv2(block, following, kept, kept, steps)

    return wrong


def conv2_next_norm(block: nn.Module, following: nn.Module, kept: Tensor) -> Any:
    """The next block's norm cut as well."""
    narrow, reader = _conv2(block, following, kept, kept)
    reader.bn1 = cut_norm(reader.bn1, kept)
    return narrow, reader


def conv2_shortcut_ins(block: Any, following: nn.Module, kept: Tensor) -> Any:
    """The projection cut along its inputs."""
    narrow, reader = _conv2(block, following, kept, kept, ("shortcut",))
    narrow.shortcut[0] = cut_conv(narrow.shortcut[0], ins=kept)
    narrow.shortcut[1] = cut_norm(narrow.shortcut[1], kept)
    return narrow, reader


def largest(conv: Any, count: int) -> Tensor:
    """The indices of the `count` filters with the largest L1 norm, in rising order."""
    size = conv.weight.detach().abs().sum(dim=(1, 2, 3))
    return size.topk(count).indices.sort().values


def keep_largest(block: nn.Module, following: nn.Module, count: int) -> tuple[nn.Module, nn.Module]:
    """Both blocks, new, with the `count` channels for which conv2's filters are largest."""
    return prune_conv2(block, following, largest(block.conv2, count))


def misaligned(block: Any, following: nn.Module, count: int) -> Any:
    """The shortcut keeps its own largest filters."""
    own = largest(block.shortcut[0], count)
    return _conv2(block, following, largest(block.conv2, count), own)


def half_aligned(block: Any, following: nn.Module, count: int) -> Any:
    """The shortcut's norm keeps the shortcut's choice."""
    kept, own = largest(block.conv2, count), largest(block.shortcut[0], count)
    narrow, reader = _conv2(block, following, kept, kept, ("shortcut norm",))
    narrow.shortcut[1] = cut_norm(narrow.shortcut[1], own)
    return narrow, reader


def by_shortcut(block: Any, following: nn.Module, count: int) -> Any:
    """The shortcut's filters decide for both."""
    return prune_conv2(block, following, largest(block.shortcut[0], count))


def by_both(block: Any, following: nn.Module, count: int) -> Any:
    """The sizes on both paths decide, added up."""
    paths = (block.conv2, block.shortcut[0])
    size: Any = sum(layer.weight.detach().abs().sum(dim=(1, 2, 3)) for layer in paths)
    return prune_conv2(block, following, size.topk(count).indices.sort().values)


def first_on_shortcut(block: Any, following: nn.Module, count: int) -> Any:
    """The shortcut keeps its first filters."""
    return _conv2(block, following, largest(block.conv2, count), torch.arange(count))


def prune_and_go_on(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    groups: Mapping[str, Group],
    keep: Mapping[str, Tensor],
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The narrow network, and an optimiser that goes on training it where the old one was."""
    narrow = prune(network, groups, keep)
    return narrow, carry_optimizer(optimizer, network, narrow, groups, keep)


def old_optimizer(network: Any, optimizer: Any, groups: Any, keep: Any) -> Any:
    """The optimiser of the wide network."""
    return prune(network, groups, keep), optimizer


def fresh_optimizer(network: Any, optimizer: Any, groups: Any, keep: Any) -> Any:
    """A new optimiser: no momentum yet."""
    narrow = prune(network, groups, keep)
    return narrow, type(optimizer)(narrow.parameters(), **optimizer.defaults)


def moved_into_old(network: Any, optimizer: Any, groups: Any, keep: Any) -> Any:
    """The carried state in the old optimiser."""
    narrow, carried = prune_and_go_on(network, optimizer, groups, keep)
    optimizer.param_groups, optimizer.state = carried.param_groups, carried.state
    return narrow, optimizer


def without_momentum(network: Any, optimizer: Any, groups: Any, keep: Any) -> Any:
    """A new optimiser of other settings."""
    narrow = prune(network, groups, keep)
    return narrow, torch.optim.SGD(narrow.parameters(), optimizer.defaults["lr"])


def not_pruned(network: Any, optimizer: Any, groups: Any, keep: Any) -> Any:
    """Nothing is removed."""
    return network, optimizer
