"""Real images through the same command: CIFAR-10 as a folder per class, and Fashion-MNIST.

    python benchmarks/real_images.py --cifar10 DIR --fashion DIR [--out runs/bench-real]

`--cifar10` holds train/ and test/ with a folder per class; `--fashion` is the folder above
torchvision's FashionMNIST/raw. A quarter of ResNet-18's width, so that two cores are enough; part
of the images. Writes data/recorded_runs/real_images.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recording import ROOT, record, run

COMMAND = "python benchmarks/real_images.py --cifar10 DIR --fashion DIR"
OPTIONS = ("--preset", "photos", "--base-width", "16")
PARTS = ("--val-images", "2000", "--test-images", "6000")


def row(name: str, result: dict[str, Any]) -> dict[str, Any]:
    """What docs/results.md quotes of a run; no path of this machine."""
    summary = result["summary"]
    return {
        "data": name,
        "options": " ".join([*OPTIONS, *PARTS]),
        "notes": summary["data"]["notes"],
        "rounds_passed": summary["rounds_passed"],
        "full": summary["full"],
        "final": summary["final"],
        "ratios": summary["ratios"],
        "seconds": summary["seconds"],
    }


def main() -> None:
    """Run what isn't done yet, then record it."""
    parser = argparse.ArgumentParser(description="Real images through the same command.")
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--fashion", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-real")
    options = parser.parse_args()
    cifar10 = ("--data", str(options.cifar10.resolve()))
    fashion = ("--data", "fashion-mnist", "--cache", str(options.fashion.resolve()))
    runs = {
        "CIFAR-10, a folder per class": run(options.out / "cifar10", *OPTIONS, *PARTS, *cifar10),
        "Fashion-MNIST": run(options.out / "fashion", *OPTIONS, *PARTS, *fashion),
    }
    rows = [row(name, result) for name, result in runs.items()]
    machine = next(iter(runs.values()))["summary"]["machine"]
    record("real_images", COMMAND, {"runs": rows, "machine": machine})


if __name__ == "__main__":
    main()
