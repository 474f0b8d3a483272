"""Plain and residual networks of the same depth, over seeds: what notebook 03 quotes.

    python benchmarks/plain_residual.py [--out runs/plain-residual] [--smoke]

Each training is kept under --out as soon as it is done, so that what was interrupted goes on when
the command is given again. Writes data/recorded_runs/plain_residual.json.
"""

from __future__ import annotations

import argparse
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import torch
from recording import ROOT, in_parts, record

from course_lib.lessons.deep import Deep, losses, scenes, spread
from course_lib.report import machine

COMMAND = "python benchmarks/plain_residual.py"
DEPTHS, SEEDS, STEPS, IMAGES = (8, 20, 32, 44), (0, 1, 2), 80, 64
GAIN = 2**0.5  # He et al.'s initialisation


def trained(depth: int, skip: bool, seed: int, steps: int) -> dict[str, Any]:
    """One training: both kinds have batch norm, the same weights to begin with and to learn."""
    torch.manual_seed(seed)
    network = spread(Deep(depth, norm=True, skip=skip), GAIN)
    found = losses(network, *scenes(IMAGES), steps)
    return {"depth": depth, "skip": skip, "seed": seed, "losses": [round(x, 4) for x in found]}


def main() -> None:
    """Train what isn't trained yet, then record it."""
    parser = argparse.ArgumentParser(description="Plain against residual, by depth and seed.")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "plain-residual")
    parser.add_argument("--smoke", action="store_true", help="two steps, one seed, not recorded")
    options = parser.parse_args()
    seeds, steps = (SEEDS[:1], 2) if options.smoke else (SEEDS, STEPS)
    parts = {
        f"{'residual' if skip else 'plain'}, {depth} layers, seed {seed}": partial(
            trained, depth, skip, seed, steps
        )
        for depth, skip, seed in itertools.product(DEPTHS, (False, True), seeds)
    }
    done = in_parts(options.out / f"{steps}-steps.json", {}, parts)
    runs = [part["result"] for part in done.values()]
    if not options.smoke:
        protocol = {"steps": STEPS, "images": IMAGES, "seeds": list(SEEDS)}
        record(
            "plain_residual",
            COMMAND,
            {"protocol": protocol, "runs": runs, "machine": machine(torch.device("cpu"))},
        )


if __name__ == "__main__":
    main()
