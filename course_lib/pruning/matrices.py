"""A convolution on few positions, written out as a matrix, so that units without effect can be left
out.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LARGEST = 2**23  # elements of a matrix: 32 MB in float32


def convolve(layer: Any, x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """The layer's convolution with other weights, in so many groups, without bias."""
    other = copy.copy(layer)
    other.groups = groups
    return other._conv_forward(x, weight, None)


@dataclass(frozen=True)
class Part:
    """Output positions in a row that read the same range of input positions."""

    outputs: tuple[int, int]
    inputs: tuple[int, int]


@dataclass(frozen=True)
class Matrix:
    """A convolution without bias: `weights` is [positions · channels, positions · filters]."""

    weights: Tensor
    parts: tuple[Part, ...]
    channels: int
    filters: int

    def multiply(self, x: Tensor, out: Tensor) -> None:
        """Write the convolution of x [N, channels, …] to out [N, filters, …], both channels last.

        Half of the units after a ReLU are zero for a whole image: these are left out.
        """
        flat, result = x.movedim(1, -1).flatten(1), out.movedim(1, -1).flatten(1)
        there = ((flat.amax(0) != 0) | (flat.amin(0) != 0)).nonzero()[:, 0]
        flat, weights = flat.index_select(1, there), self.weights.index_select(0, there)
        bounds = torch.tensor([part.inputs for part in self.parts], device=there.device)
        bounds = torch.searchsorted(there, bounds * self.channels)
        for part, (first, end) in zip(self.parts, bounds.tolist(), strict=True):
            columns = slice(part.outputs[0] * self.filters, part.outputs[1] * self.filters)
            torch.mm(flat[:, first:end], weights[first:end, columns], out=result[:, columns])


def as_matrix(layer: Any, before: torch.Size, after: torch.Size) -> Matrix | None:
    """The matrix of a convolution from maps of the shape `before` to maps of the shape `after`.

    None where that would take more multiplications than the convolution does, or too much memory.
    """
    weight = layer.weight
    places, taps = before.numel(), weight[0, 0].numel()
    size = weight.shape[0] * weight.shape[1] * places * after.numel()
    if layer.padding_mode != "zeros" or taps == 1 or places > 4 * taps or size > LARGEST:
        return None
    # Which weight of the kernel leads from which input position to which output position; 0: none.
    numbers = torch.arange(1.0, taps + 1, device=weight.device, dtype=weight.dtype)
    single = torch.eye(places, device=weight.device, dtype=weight.dtype).view(places, 1, *before)
    leads = convolve(layer, single, numbers.view(1, 1, *weight.shape[2:]), 1).flatten(1)
    leads = leads.round().long()
    parts = _parts(leads)
    work = sum((p.outputs[1] - p.outputs[0]) * (p.inputs[1] - p.inputs[0]) for p in parts)
    if work > after.numel() * taps:
        return None
    padded = torch.cat([torch.zeros_like(weight.flatten(2)[:, :, :1]), weight.flatten(2)], 2)
    weights = padded[:, :, leads].permute(2, 1, 3, 0)  # [before, channels, after, filters]
    weights = weights.flatten(2).flatten(0, 1).contiguous()
    return Matrix(weights, parts, weight.shape[1], weight.shape[0])


def _parts(leads: Tensor) -> tuple[Part, ...]:
    """Output positions, joined where neighbours read the same range of input positions."""
    parts: list[Part] = []
    for output, column in enumerate(leads.unbind(1)):
        reads = column.nonzero()[:, 0].tolist() or [0]
        inputs = (reads[0], reads[-1] + 1)
        if parts and parts[-1].inputs == inputs:
            parts[-1] = Part((parts[-1].outputs[0], output + 1), inputs)
        else:
            parts.append(Part((output, output + 1), inputs))
    return tuple(parts)
