"""Which defaults suit a small folder of photographs: unequal classes, a part of the labels wrong.

    python benchmarks/photographs.py --cifar10 DIR [--seeds 3]

`--cifar10` holds train/ and test/ with a folder per class. Nine of its classes, 2,900 training
images in all, 700 of one class and 100 of another, 8 % of their labels drawn anew, enlarged to 64
pixels; the labels of validation and test are clean and the classes there of equal size. Base
training alone, at a quarter of ResNet-18's width; every variant changes the preset `laptop`.
Validation decides between them, the test is beside it. What was interrupted goes on when the
command is given again. Writes data/recorded_runs/photographs.json. Twenty minutes on two
idle cores.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from recording import ROOT, in_parts, record

from course_lib.config import PRESETS
from course_lib.data import Data, Split
from course_lib.iterate import make_loader
from course_lib.report import machine
from course_lib.resnet import ResNet
from course_lib.training import accuracy, one_cycle, place

CPU = torch.device("cpu")
COMMAND = "python benchmarks/photographs.py --cifar10 DIR"
SIZES = (700, 600, 450, 350, 250, 200, 150, 100, 100)
WRONG, PIXELS = 0.08, 64
TEST_PER_CLASS, VAL_PER_CLASS = 300, 200
SMOOTHED = {"batches": 900, "label_smoothing": 0.1}
VARIANTS: dict[str, dict[str, Any]] = {
    "the preset": {},
    "labels smoothed by 0.1": {"label_smoothing": 0.1},
    "twice the batches": {"batches": 900},
    "twice the batches, smoothed": SMOOTHED,
    "twice the batches of half the size": {"batches": 900, "batch_size": 32},
    "twice the batches, smoothed, rate 0.05": {**SMOOTHED, "rate": 0.05},
    "twice the batches, smoothed, shift 0.15 and zoom 0.3": {
        **SMOOTHED,
        "shift": 0.15,
        "zoom": 0.3,
    },
    "four times the batches, smoothed": {**SMOOTHED, "batches": 1800},
    "four times the batches": {"batches": 1800},
}


def images(files: list[Path]) -> np.ndarray:
    """The files' pixels, enlarged."""
    return np.stack(
        [np.asarray(Image.open(file).convert("RGB").resize((PIXELS, PIXELS))) for file in files]
    )


def folder(root: Path) -> Data:
    """The set described above, the same each time."""
    random = np.random.default_rng(0)
    classes = sorted(path.name for path in (root / "train").iterdir())[: len(SIZES)]
    files, labels, test_files, val_files = [], [], [], []
    for label, (name, size) in enumerate(zip(classes, SIZES, strict=True)):
        files += sorted((root / "train" / name).iterdir())[:size]
        labels += [label] * size
        clean = sorted((root / "test" / name).iterdir())
        test_files += clean[:TEST_PER_CLASS]
        val_files += clean[TEST_PER_CLASS:][:VAL_PER_CLASS]
    wrong = random.random(len(labels)) < WRONG
    drawn = random.integers(0, len(classes), len(labels))
    noisy = np.where(wrong, drawn, labels).astype(np.int64)
    pixels = images(files)
    numbers = np.arange(len(classes))
    val = Split(images(val_files), numbers.repeat(VAL_PER_CLASS))
    test = Split(images(test_files), numbers.repeat(TEST_PER_CLASS))
    share = pixels.astype(np.float32) / 255
    mean, std = share.mean((0, 1, 2)), share.std((0, 1, 2))
    return Data(
        name="CIFAR-10, unequal classes, some labels wrong",
        classes=tuple(classes),
        train=Split(pixels, noisy),
        val=val,
        test=test,
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
    )


def trained(variant: str, seed: int, data: Data) -> dict[str, Any]:
    """Base training as a run does it, then its accuracy."""
    config = replace(PRESETS["laptop"], base_width=16, seed=seed, **VARIANTS[variant])
    torch.manual_seed(seed)
    network = place(ResNet(config.network(len(data.classes), 3, PIXELS)), CPU)
    loader = make_loader(config, data, CPU)
    started = time.perf_counter()
    batches = loader.training_batches("base", 0, config.batches)
    names = ("momentum", "weight_decay", "warm_up", "label_smoothing")
    how = {name: getattr(config, name) for name in names}
    for _ in one_cycle(network, batches, config.batches, config.rate, **how):
        pass
    seconds = time.perf_counter() - started
    return {
        "variant": variant,
        "seed": seed,
        "seconds": round(seconds, 1),
        "val_accuracy": accuracy(network, loader.batches("val")),
        "test_accuracy": accuracy(network, loader.batches("test")),
    }


def main() -> None:
    """Train what isn't trained yet, then record."""
    parser = argparse.ArgumentParser(description="Defaults for small folders of photographs.")
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-photographs.json")
    options = parser.parse_args()
    data = folder(options.cifar10)
    parts = {
        f"{name}, seed {seed}": partial(trained, name, seed, data)
        for seed in range(options.seeds)
        for name in VARIANTS
    }
    done = in_parts(options.out, {}, parts)
    rows = [part["result"] for part in done.values()]
    for name in VARIANTS:
        found = [row["val_accuracy"] for row in rows if row["variant"] == name]
        print(f"{name}: {statistics.mean(found):.1%} ({min(found):.1%} to {max(found):.1%})")
    record("photographs", COMMAND, {"trainings": rows, "machine": machine(CPU)})


if __name__ == "__main__":
    main()
