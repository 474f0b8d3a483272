"""What the exercises of notebook 04 are tried on, and what is read off the answers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.lessons.exercise import Case
from course_lib.pruning import find_groups
from course_lib.resnet import BasicBlock, BlockConfig

Answer = Callable[..., Any]


def convolutions() -> list[Case]:
    """Small convolutions, with and without bias, and what is kept of them."""
    return [
        (_random(nn.Conv2d(2, 3, 1)), torch.tensor([0, 2]), None),
        (_random(nn.Conv2d(3, 3, 1, bias=False)), torch.tensor([0, 1]), torch.tensor([1, 2])),
        (_random(nn.Conv2d(4, 4, 3, stride=2, padding=1)), None, torch.tensor([1, 3])),
        (_random(nn.Conv2d(4, 5, 3, padding=1)), torch.tensor([0, 3, 4]), torch.tensor([0, 2])),
        (_random(nn.Conv2d(2, 3, 1).double()), torch.tensor([0, 2]), torch.tensor([1])),
    ]


def norms() -> list[Case]:
    """Batch norms that have seen data, and the channels to keep."""
    special = nn.BatchNorm2d(5, eps=1e-3, momentum=0.2).eval()
    special.num_batches_tracked = torch.tensor(7)
    return [
        (_random(nn.BatchNorm2d(3)), torch.tensor([0, 2])),
        (_random(special), torch.tensor([1, 2, 4])),
        (_random(nn.BatchNorm2d(3).double()), torch.tensor([0, 2])),
    ]


def one_block() -> list[Case]:
    """A block and the filters of its conv1 to keep."""
    return [
        (_block(2, (3, 3), 1), torch.tensor([0, 2])),
        (_block(3, (5, 5), 2), torch.tensor([1, 3, 4])),
    ]


def two_blocks() -> list[Case]:
    """Two blocks in a row and the filters of the first one's conv2 to keep.

    Every width allows for those indices, so that each wrong cut gives shapes of its own.
    """
    return [
        (_block(3, (3, 3), 3), _block(3, (3, 3), 4), torch.tensor([0, 2])),
        (_block(5, (5, 5), 7), _block(5, (5, 5), 8), torch.tensor([1, 3, 4])),
    ]


def two_blocks_and_count() -> list[Case]:
    """Two blocks in a row, whose two paths would choose differently, and how many stay."""
    small = (_block(2, (2, 3), 0), _block(3, (2, 2), 5), 2)
    return [small, (_block(5, (5, 5), 88), _block(5, (5, 5), 8), 3)]


def values() -> list[Case]:
    """Values of a few images and the channels to keep."""
    small = torch.arange(1.0, 9).view(2, 4, 1, 1)
    return [
        (small, torch.tensor([0, 1])),
        (_noise(2, 5, 3, 3), torch.tensor([1, 4])),
        (_noise(2, 3, 2, 2).double(), torch.tensor([0, 2])),
    ]


def network_and_keep() -> list[Case]:
    """A chain of layers, and what is kept of its only group."""
    chain = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 2),
    )
    return [(_random(chain, 7), {"0": torch.tensor([0, 2])})]


def conv_parts(answer: Answer, case: Case) -> Any:
    """The weights and the records of the convolution that an answer returns."""
    before = copy.deepcopy(case[0])
    conv = answer(*case)
    if conv is None:
        return None
    if conv.weight.dim() == 5:
        raise ValueError(
            "the weight has five dimensions, since None as an index adds one. Here it means all:"
            " write `if outs is not None`, and the same for ins."
        )
    names = ("out_channels", "in_channels", "stride", "padding")
    return {
        "weight": conv.weight,
        "bias": "none" if conv.bias is None else conv.bias,
        **{name: getattr(conv, name) for name in names},
        "type": _types(conv),
        "the old one is as it was": _same(case[0], before),
    }


def norm_parts(answer: Answer, case: Case) -> Any:
    """The tensors and the records of the batch norm that an answer returns."""
    before = copy.deepcopy(case[0])
    norm = answer(*case)
    if norm is None:
        return None
    names = ("weight", "bias", "running_mean", "running_var", "num_features")
    kept = ("eps", "momentum", "num_batches_tracked", "training")
    found = {name: getattr(norm, name) for name in (*names, *kept)}
    found["learned"] = [name for name, _ in norm.named_parameters()]
    found["type"] = _types(norm)
    return {**found, "the old one is as it was": _same(case[0], before)}


def block_output(answer: Answer, case: Case) -> Any:
    """The shape of conv1, and what the new block computes in evaluation mode."""
    block, kept = case
    given = copy.deepcopy(block)
    narrow = answer(given, kept)
    if narrow is None:
        return None
    return {
        "conv1": list(narrow.conv1.weight.shape),
        "the old block is as it was": _same(given, block),
        "output": _computed(narrow, block),
    }


def both_outputs(answer: Answer, case: Case) -> Any:
    """The widths of every layer that is to change, and what the two blocks compute in a row."""
    block, following, kept = case
    given = copy.deepcopy(block), copy.deepcopy(following)
    result = answer(*given, kept)
    if result is None:
        return None
    narrow, reader = result
    untouched = _same(given[0], block) and _same(given[1], following)
    return {
        "block: conv2": _shape(narrow.conv2),
        "bn2": _shape(narrow.bn2),
        "shortcut": [_shape(layer) for layer in narrow.shortcut],
        "following: conv1": _shape(reader.conv1),
        "shortcut[0]": _shape(reader.shortcut[0]),
        "the old blocks are as they were": untouched,
        "output": _computed(nn.Sequential(narrow, reader), block),
    }


def output_only(answer: Answer, case: Case) -> Any:
    """What the two blocks compute in a row."""
    result = both_outputs(answer, case)
    return None if result is None else result["output"]


def zeroed(answer: Answer, case: Case) -> Any:
    """What comes back, and whether what went in is as it was."""
    x, kept = case
    before = x.clone()
    result = answer(x, kept)
    if result is None:
        return None
    return {
        "zeroed": result,
        "type": str(getattr(result, "dtype", "no tensor")),
        "x is as it was": torch.equal(x, before),
    }


def trained_on(answer: Answer, case: Case) -> Any:
    """Three steps, the answer's surgery, two steps more: did the weights move, and to where?"""
    network, keep = copy.deepcopy(case[0]), case[1]
    x, truth = _noise(6, 1, 4, 4), torch.tensor([0, 1, 0, 1, 1, 0])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)  # the notebook's
    _steps(network, optimizer, x, truth, 3)
    held = list(network.parameters())
    result = answer(network, optimizer, find_groups(network, x[:1]), keep)
    if result is None:
        return None
    narrow, carried = result
    still = [*map(id, optimizer.param_groups[0]["params"]), *map(id, optimizer.state)]
    before = narrow[0].weight.detach().clone()
    _steps(narrow, carried, x, truth, 2)
    after = narrow[0].weight.detach()
    return {
        "filters": len(after),
        "the weights move": not torch.equal(before, after),
        "middles of the filters": after[:, 0, 1, 1],
        "the old optimiser is as it was": still == 2 * [id(parameter) for parameter in held],
    }


def _steps(network: nn.Module, optimizer: Any, x: Tensor, truth: Tensor, count: int) -> None:
    for _ in range(count):
        loss = nn.functional.cross_entropy(network(x), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _computed(layers: nn.Module, block: BasicBlock) -> Any:
    """The output for one small image, or the name of the error where the shapes don't fit."""
    x = _noise(1, block.conv1.in_channels, 2, 2)
    try:
        return layers.eval()(x)
    except RuntimeError as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


def _types(module: nn.Module) -> str:
    """The types of a module's numbers, those that count batches aside."""
    found = (tensor for tensor in module.state_dict().values() if tensor.is_floating_point())
    return ", ".join(sorted({str(tensor.dtype) for tensor in found}))


def _same(one: nn.Module, other: nn.Module) -> bool:
    """Have both the same records and the same numbers?"""
    mine, its = one.state_dict(), other.state_dict()
    told = str(one) == str(other) and list(mine) == list(its)
    return told and all(torch.equal(mine[name], its[name]) for name in mine)


def _shape(layer: Any) -> list[int]:
    return list(layer.weight.shape)


def _block(width_in: int, widths: tuple[int, int], seed: int) -> BasicBlock:
    return _random(BasicBlock(width_in, BlockConfig(widths, projection="norm")), seed)


def _random(module: Any, seed: int = 0) -> Any:
    """The module with numbers drawn for all of its weights and statistics, as after training."""
    draws = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            drawn = torch.rand(tensor.shape, generator=draws)
            positive = name.endswith("running_var")
            tensor.copy_(drawn + 0.5 if positive else 2 * drawn - 1)
    return module


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))
