"""Networks of several widths, and the ways to run them: what speed_limit.py and gpu.py time.

The weights are random, since time depends on the widths alone: nothing is skipped for being zero,
and with He's initialisation no value is so small that a processor would slow down.
"""

from __future__ import annotations

import copy
import platform
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib import export, measure
from course_lib.data import Data, Split
from course_lib.pruning import find_groups, prune, select
from course_lib.resnet import ResNet, ResNetConfig, config_of, resnet_config

SHARE = 0.209  # of the parameters: what the article's last network has left
MULTIPLES = {"as they come": 1, "multiples of 8": 8, "multiples of 16": 16}
Call = Callable[[], Any]
Way = Callable[[nn.Module, Tensor], Call]


class NotHere(Exception):
    """Why a way can't be taken on this machine, in a few words."""


def pruned_widths(full: ResNetConfig, multiple: int) -> ResNetConfig:
    """The widths that within-layer pruning leaves of a network, rounded up to a multiple, at the
    fraction that brings the parameters nearest to SHARE.
    """
    wide = ResNet(full)
    groups = find_groups(wide, torch.zeros(1, full.channels, 64, 64))
    order = {name: torch.arange(group.size) for name, group in groups.items()}
    wide = wide.to("meta")  # only shapes matter from here on
    every = measure.count_parameters(wide)
    fractions = [number / 200 for number in range(60, 160)]
    plans = [select(order, fraction=fraction, multiple=multiple) for fraction in fractions]
    low, high = 0, len(plans) - 1
    while low < high:  # the first plan with no more than SHARE
        middle = (low + high) // 2
        left = measure.count_parameters(prune(wide, groups, plans[middle])) / every
        low, high = (low, middle) if left <= SHARE else (middle + 1, high)
    nearest = [prune(wide, groups, plan) for plan in plans[max(0, low - 1) : low + 1]]
    best = min(nearest, key=lambda one: abs(measure.count_parameters(one) / every - SHARE))
    return config_of(best)


def networks(full: ResNetConfig) -> dict[str, ResNet]:
    """The full network and a pruned one for each of MULTIPLES, in evaluation mode."""
    torch.manual_seed(0)
    configs = {name: pruned_widths(full, multiple) for name, multiple in MULTIPLES.items()}
    return {name: ResNet(config).eval() for name, config in {"full": full, **configs}.items()}


def resnet18(base_width: int = 64, small_images: bool = False) -> ResNetConfig:
    """A standard ResNet-18 with a projection on every block, for eight or ten classes."""
    classes = 10 if small_images else 8
    return resnet_config(18, classes, base_width=base_width, small_images=small_images)


def sizes(found: Mapping[str, ResNet], shape: tuple[int, int, int]) -> dict[str, dict[str, Any]]:
    """Parameters, MACs for one image [C, H, W] and widths of each network."""
    rows: dict[str, dict[str, Any]] = {}
    for name, network in found.items():
        rows[name] = {
            "parameters": measure.count_parameters(network),
            "macs": measure.count_macs(network, shape),
            "widths": [network.conv1.out_channels]
            + [w for s in config_of(network).stages for block in s for w in block.widths],
        }
    return rows


def noise(images: int, pixels: int, classes: int = 8) -> Data:
    """Random pixels and labels, for timing training: its time doesn't depend on them."""
    random = np.random.default_rng(0)
    values = random.integers(0, 256, (images, pixels, pixels, 3), np.uint8)
    split = Split(values, random.integers(0, classes, images))
    names = tuple(map(str, range(classes)))
    return Data("noise", names, split, split, split, (0.5,) * 3, (0.25,) * 3)


# ---- the ways


def plain(network: nn.Module, images: Tensor) -> Call:
    """As it was trained, with its batch norms."""
    return partial(copy.deepcopy(network), images)


def folded(network: nn.Module, images: Tensor) -> Call:
    """Batch norms folded, the memory layout as PyTorch makes it."""
    return partial(measure.fold(network).to(memory_format=torch.contiguous_format), images)


def channels_last(network: nn.Module, images: Tensor) -> Call:
    """Folded and channels-last, as `measure.fold` gives it; the images too."""
    return partial(measure.fold(network), images.to(memory_format=torch.channels_last))


def bfloat16(network: nn.Module, images: Tensor, way: Way = channels_last) -> Call:
    """Another way, with weights and values in bfloat16; folded before, in float32."""
    if images.device.type == "cpu" and not cpu_has_bfloat16():
        raise NotHere("this processor has no bfloat16 arithmetic")
    return way(measure.fold(network).bfloat16(), images.bfloat16())


def compiled(network: nn.Module, images: Tensor, backend: str = "inductor") -> Call:
    """Folded, channels-last, compiled for this batch size; on the CPU the weights are constants.

    So that they are laid out in blocks beforehand, as oneDNN reads them.
    """
    torch._dynamo.reset()
    on_cpu = images.device.type == "cpu"
    options = {"freezing": True} if backend == "inductor" and on_cpu else None
    call = torch.compile(measure.fold(network), backend=backend, dynamic=False, options=options)
    run = partial(call, images.to(memory_format=torch.channels_last))
    try:
        run()
    except Exception as error:  # a compiler that is missing or fails raises nearly anything
        raise NotHere(f"torch.compile fails: {type(error).__name__}") from error
    return run


def onnx_file(network: nn.Module, images: Tensor, folder: Path) -> Path:
    """The network as an ONNX file, exported once as long as the folder is there."""
    path = folder / f"{id(network)}.onnx"
    return path if path.exists() else export.write_onnx(network, images, path)


def onnx_runtime(network: nn.Module, images: Tensor, folder: Path) -> Call:
    """Exported to ONNX and run by ONNX Runtime."""
    return partial(export.open_onnx(onnx_file(network, images, folder)), images)


def cuda_graph(network: nn.Module, images: Tensor) -> Call:
    """Folded and channels-last, all kernels recorded once and started together.

    A call includes the copy of the images to where the recorded kernels read them.
    """
    if images.device.type != "cuda":
        raise NotHere("CUDA graphs need a CUDA device")
    images = images.to(memory_format=torch.channels_last)
    ready, read = measure.fold(network), images.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # warmed up aside, as PyTorch's documentation asks
        for _ in range(3):
            ready(read)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = ready(read)

    def call() -> Tensor:
        read.copy_(images)
        graph.replay()
        return logits

    return call


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself, rather than PyTorch through float32."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        mkldnn = torch.backends.mkldnn.is_available()
        return mkldnn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


# ---- timing


@torch.inference_mode()
def timed(
    found: Mapping[str, nn.Module],
    images: Tensor,
    way: Way,
    *,
    passes: int = 7,
    seconds: float = 0.2,
) -> dict[str, Any]:
    """Every network run this way, and the full one plainly, in alternating passes.

    `rates`: images per second, the medians. `speedup`: of each pruned network over the full one
    run the same way; `gain`: of every network over the full one run plainly; both as median,
    lowest and highest ratio within a pass. `apart`: the largest difference of a logit from the
    plain network's, relative to the largest logit. Or `skipped`: why not.
    """
    device = images.device
    there = {name: network.to(device) for name, network in found.items()}
    try:
        calls = {name: way(network, images) for name, network in there.items()}
    except (NotHere, torch.OutOfMemoryError) as why:
        return {"skipped": str(why).splitlines()[0]}
    expected = {name: plain(network, images)() for name, network in there.items()}
    apart = {name: _apart(call(), expected[name]) for name, call in calls.items()}
    calls["plainly"] = plain(there["full"], images)
    readings = measure.seconds_in_turn(calls, passes=passes, seconds=seconds)
    return {
        "rates": {
            name: round(len(images) / statistics.median(mine), 1) for name, mine in readings.items()
        },
        "speedup": {name: _ratio(readings, name, "full") for name in found if name != "full"},
        "gain": {name: _ratio(readings, name, "plainly") for name in found},
        "apart": max(apart.values()),
    }


def _ratio(readings: Mapping[str, list[float]], name: str, base: str) -> list[float]:
    ratios = [b / mine for mine, b in zip(readings[name], readings[base], strict=True)]
    return [round(one, 3) for one in (statistics.median(ratios), min(ratios), max(ratios))]


def _apart(logits: Tensor, expected: Tensor) -> float:
    error = (logits.float() - expected.float()).abs().max() / expected.float().abs().max()
    return float(f"{error.item():.1e}")
