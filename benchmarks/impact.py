"""What pruning buys in time beside its rivals: `python benchmarks/impact.py`, under 4 minutes.

Writes data/recorded_runs/impact.json, which notebook 08 shows beside its own live measurement. Run
it while the machine does nothing else. The wide networks have the widths that the recorded laptop
run ended with, and random weights; the small ones are those of data/small/.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from recording import RECORDED, record
from torch import Tensor, nn

from course_lib import export, measure, training
from course_lib.answers import share_right
from course_lib.data import Data
from course_lib.report import machine
from course_lib.resnet import ResNet, ResNetConfig, resnet_config
from course_lib.small import load_small, small_data

SHAPE = (3, 48, 48)
SIZES = (1, 8, 32, 128)  # images at a time
WIDTHS = range(41, 73)
PIXELS = 32
CPU = torch.device("cpu")
Network = Callable[[Tensor], Tensor]


def wide_networks() -> dict[str, ResNet]:
    """ResNet-18 before and after the recorded laptop run; the weights are random."""
    run = json.loads((RECORDED / "laptop_seed0.json").read_text(encoding="utf-8"))
    ends = {"full": run["history"][0], "pruned": run["history"][-1]}
    return {
        name: ResNet(ResNetConfig.from_dict(end["network"])).eval() for name, end in ends.items()
    }


def speedups(networks: dict[str, ResNet]) -> dict[int, dict[str, float]]:
    """Pruned against full at each batch size: rates, and the ratio's middle and range."""
    found = {}
    for size in SIZES:
        images = torch.randn(size, *SHAPE)
        readings = measure.images_per_second(networks, images, passes=9, seconds=0.3)
        ratios = [p / f for p, f in zip(readings["pruned"], readings["full"], strict=True)]
        low, high = measure.speed_range(readings, "pruned", "full")
        rates = {name: round(statistics.median(mine), 1) for name, mine in readings.items()}
        middle = statistics.median(ratios)
        found[size] = {**rates, "middle": round(middle, 3), "low": round(low, 3)}
        found[size]["high"] = round(high, 3)
    return found


def staircase() -> dict[int, float]:
    """Microseconds of a 3×3 convolution by its width, on 8 images of 12 by 12 positions."""
    calls = {}
    for width in WIDTHS:
        layer = nn.Conv2d(width, width, 3, padding=1).to(memory_format=torch.channels_last)
        images = torch.randn(8, width, 12, 12).to(memory_format=torch.channels_last)
        calls[str(width)] = partial(layer, images)
    with torch.inference_mode():
        readings = measure.seconds_in_turn(calls, passes=7, seconds=0.02)
    return {int(width): round(1e6 * statistics.median(r), 1) for width, r in readings.items()}


def shrunk(images: Tensor) -> Tensor:
    """The images at PIXELS by PIXELS."""
    small = F.interpolate(images, size=(PIXELS, PIXELS), mode="bilinear", antialias=True)
    return small.contiguous(memory_format=torch.channels_last)


def trained(
    network: ResNet, data: Data, batches: int, peak: float, change: Network = lambda images: images
) -> nn.Module:
    """The network trained for one cycle and folded."""
    feed = training.Loader(data, CPU, augmentation=training.Augmentation())
    made = ((change(x), y) for x, y in feed.training_batches("impact", 0, batches))
    for _ in training.one_cycle(network, made, batches, peak):
        pass
    return measure.fold(network)


def ways(data: Data, images: Tensor, folder: Path) -> dict[str, tuple[Network, Tensor]]:
    """Every way to a cheaper network, with the images as it reads them."""
    full, pruned = load_small("full"), load_small("pruned")
    some = torch.cat([batch for batch, _ in training.Loader(data, CPU).batches("train", 256)])
    runs: dict[str, Network] = {}
    for name, network in (("full", full), ("pruned", pruned)):
        file = export.write_onnx(network, images, folder / f"{name}.onnx")
        runs[f"{name}, ONNX"] = export.open_onnx(file)
        int8 = export.quantize_onnx(file, some, folder / f"{name}_int8.onnx")
        runs[f"{name}, int8"] = export.open_onnx(int8)
    torch.manual_seed(0)
    narrow = trained(ResNet(resnet_config(18, 8, base_width=8)), data, 2_000, 0.1)
    at_32 = trained(load_small("full"), data, 400, 0.03, shrunk)
    return {
        "full": (measure.fold(full), images),
        "full, bfloat16": (measure.fold(full).to(torch.bfloat16), images.bfloat16()),
        "full, ONNX": (runs["full, ONNX"], images),
        "full, int8": (runs["full, int8"], images),
        f"full, {PIXELS} pixels": (at_32, shrunk(images)),
        "width 8": (narrow, images),
        "pruned": (measure.fold(pruned), images),
        "pruned, ONNX": (runs["pruned, ONNX"], images),
        "pruned, int8": (runs["pruned, int8"], images),
    }


def choices(data: Data) -> dict[str, dict[str, float]]:
    """Accuracy on the test images, and milliseconds for an image, 64 at a time."""
    batches = list(training.Loader(data, CPU, batch_size=250).batches("test"))
    images, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        found = ways(data, images, Path(folder))
    rows = {}
    with torch.inference_mode():
        calls = {name: partial(network, x[:64]) for name, (network, x) in found.items()}
        readings = measure.seconds_in_turn(calls, passes=7, seconds=0.2)
        for name, (network, x) in found.items():
            answers = torch.cat([network(part).argmax(1) for part in x.split(250)])
            ms = 1000 * statistics.median(readings[name]) / 64
            right = share_right(labels, answers)
            rows[name] = {"accuracy": round(right, 4), "ms": round(ms, 4)}
    return rows


def main() -> None:
    """Measure all of it, and write the record."""
    started = time.perf_counter()
    networks = wide_networks()
    images = torch.randn(32, *SHAPE)
    content: dict[str, Any] = {
        "macs": {name: measure.count_macs(network, SHAPE) for name, network in networks.items()},
        "speedups": speedups(networks),
        "layers": {
            name: measure.layer_milliseconds(network, images, passes=7, seconds=0.05)
            for name, network in networks.items()
        },
        "staircase": staircase(),
        "choices": choices(small_data(train=12_000, test=6_000)),
    }
    content["seconds"] = round(time.perf_counter() - started, 1)
    record("impact", "python benchmarks/impact.py", {"machine": machine(CPU), **content})


if __name__ == "__main__":
    main()
