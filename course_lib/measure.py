"""What a network costs: parameters, bytes, multiply-accumulates, images per second."""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.utils.flop_counter import FlopCounterMode

# Importing the timer makes PyTorch warn about a CUDA compiler without a CUDA device, which is
# nothing to a learner.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
from torch.utils.benchmark import Timer  # noqa: E402


def count_parameters(network: nn.Module) -> int:
    """Learned numbers: weights and biases, without a batch norm's running statistics."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_bytes(network: nn.Module) -> int:
    """The size in bytes of a file with the network's state dict."""
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return file.getbuffer().nbytes


def count_macs(network: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates for one image [C, H, W]: half of what PyTorch's counter calls FLOPs.

    Of convolutions and linear layers; as usual, batch norm, activations and additions don't count.
    """
    shapes_only = copy.deepcopy(network).to("meta", torch.float32).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        shapes_only(torch.empty(1, *image_shape, device="meta"))
    return counter.get_total_flops() // 2


def fold(network: nn.Module) -> nn.Module:
    """A copy for inference, its batch norms folded into the convolutions by PyTorch's own pass."""
    device = next(network.parameters()).device
    folded = fuse(copy.deepcopy(network).eval(), inplace=True)
    return folded if device.type == "mps" else folded.to(memory_format=torch.channels_last)


def images_per_second(
    networks: Mapping[str, nn.Module], images: Tensor, *, passes: int = 5, seconds: float = 0.2
) -> dict[str, list[float]]:
    """Time folded networks in turn: for each name, one reading per pass.

    The machine's speed drifts, so every pass times every network, there and back again; compare two
    networks by the median of their ratios within a pass. `seconds`: how long one reading takes at
    least.
    """
    with torch.inference_mode():
        folded = {name: fold(network) for name, network in networks.items()}
        timers = {
            name: Timer(
                "network(images)",
                globals={"network": network, "images": images},
                num_threads=torch.get_num_threads(),
            )
            for name, network in folded.items()
        }
        repeats = {}
        for name, timer in timers.items():
            timer.timeit(1)  # warm up
            repeats[name] = max(1, round(seconds / timer.timeit(2).mean))
        readings: dict[str, list[float]] = {name: [] for name in networks}
        for number in range(passes):
            for name in list(timers) if number % 2 == 0 else reversed(timers):
                readings[name].append(len(images) / timers[name].timeit(repeats[name]).mean)
    return readings


def speed_range(readings: Mapping[str, list[float]], name: str, base: str) -> tuple[float, float]:
    """The lowest and the highest ratio of images per second to `base` within a pass."""
    ratios = [mine / theirs for mine, theirs in zip(readings[name], readings[base], strict=True)]
    return min(ratios), max(ratios)
