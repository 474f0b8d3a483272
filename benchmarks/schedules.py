"""How to prune and fine-tune: rounds, learning rate, a teacher, each against the presets' way.

    python benchmarks/schedules.py --cifar10 DIR [--out runs/bench-schedules]

Writes data/recorded_runs/schedules.json. Two data sets at a quarter of ResNet-18's width, the
stand-in for a small folder of photographs that photographs.py describes, with the preset `photos`,
and generated vehicles with the preset `laptop`; both at full width, too, the first with the
schedule of `photos` alone, since it takes longest, the other without a teacher. Of each, three
networks, which differ in their seed only, are trained as the preset says; every schedule takes the
same networks to the same size, in the library's own loop, with as many batches of fine-tuning in
all unless its name says how many. Seconds are those of all rounds. Validation decides between them;
the test is beside it. A finished run isn't done again. Two hours and three quarters, with nothing
else running.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from photographs import folder
from recording import ROOT, lines, record

from course_lib import checkpoint, measure
from course_lib.config import PRESETS, Config
from course_lib.data import Data, load
from course_lib.iterate import iterate, make_loader
from course_lib.report import machine
from course_lib.resnet import from_saved, load_network
from course_lib.training import accuracy, place

COMMAND = "python benchmarks/schedules.py --cifar10 DIR"
CPU = torch.device("cpu")
QUARTER, FULL = 16, 64  # widths of ResNet-18
LEFT = 0.95**16  # of the filters, as the presets leave
BATCHES = 800  # of fine-tuning, in all rounds, unless a schedule's name says how many
RATE = 0.1


def schedule(rounds: int, batches: int = BATCHES, **changes: Any) -> dict[str, Any]:
    """What to change so that `rounds` equal cuts share the batches of fine-tuning."""
    fraction = 1 - LEFT ** (1 / rounds)
    return {
        "rounds": rounds,
        "fraction": fraction,
        "finetune_batches": batches // rounds,
        "final_batches": 0,
        "distill": 0.0,
        **changes,
    }


SCHEDULES: dict[str, dict[str, Any]] = {
    "16 rounds, rate 0.03": schedule(16, finetune_rate=0.03),
    "16 rounds, rate 0.1": schedule(16, finetune_rate=RATE),
    "4 rounds, rate 0.1": schedule(4, finetune_rate=RATE),
    "one cut, rate 0.1": schedule(1, finetune_rate=RATE),
    "4 rounds, rate 0.1, teacher 0.5": schedule(4, finetune_rate=RATE, distill=0.5),
    "4 rounds, rate 0.1, teacher 0.9": schedule(4, finetune_rate=RATE, distill=0.9),
}
# Is it the number of cuts that costs accuracy, or that few batches are left for the last network?
SAVED = {
    "16 rounds, rate 0.03, half at the end": schedule(
        16, 400, finetune_rate=0.03, final_batches=400
    ),
}
# With the best of them, is it the number of cuts or that of the batches that still costs accuracy?
PHOTOS = "4 rounds, rate 0.1, teacher 0.9, 1600 batches"  # the preset's own
LONGER: dict[str, dict[str, Any]] = {
    "one cut, rate 0.1, teacher 0.9": schedule(1, finetune_rate=RATE, distill=0.9),
    PHOTOS: schedule(4, 1600, finetune_rate=RATE, distill=0.9),
    "4 rounds, rate 0.1, teacher 0.9, 1600 batches, most at the end": schedule(
        4, 400, finetune_rate=RATE, distill=0.9, final_batches=1200
    ),
    "one cut, rate 0.1, teacher 0.9, 1600 batches": schedule(
        1, 1600, finetune_rate=RATE, distill=0.9
    ),
}


class Set(NamedTuple):
    """What the schedules are compared on."""

    preset: str
    base_width: int
    data: Callable[[int, Path], Data]
    schedules: dict[str, dict[str, Any]]


def _vehicles(seed: int, cifar10: Path) -> Data:
    return load("generated", image_size=None, seed=seed)


WITHOUT_TEACHER = {k: v for k, v in SCHEDULES.items() if not v["distill"]}
SETS = [
    Set("photos", QUARTER, lambda seed, cifar10: folder(cifar10), SCHEDULES | LONGER),
    Set("photos", FULL, lambda seed, cifar10: folder(cifar10), {PHOTOS: LONGER[PHOTOS]}),
    Set("laptop", QUARTER, _vehicles, SCHEDULES | SAVED),
    Set("laptop", FULL, _vehicles, WITHOUT_TEACHER | SAVED),
]


def config_for(preset: str, base_width: int, seed: int, changes: dict[str, Any]) -> Config:
    """A preset at another width, without gate and curve, so that all reach one size."""
    quiet = {"gate": False, "curve_every": 10_000, "curve_images": 64, "checkpoint_every": 10_000}
    return replace(PRESETS[preset], base_width=base_width, seed=seed, **quiet, **changes)


def begin(config: Config, data: Data, base: Path, out: Path) -> None:
    """Put the trained network of a seed into a run's folder; train it if no run has had it yet."""
    if not base.exists():
        base.parent.mkdir(parents=True, exist_ok=True)
        only = replace(config, rounds=0)
        trained = iterate(only, data, base.parent, CPU, resume=True, progress=False)
        assert trained.full is not None
        checkpoint.write_whole(base, partial(torch.save, trained.full))
    out.mkdir(parents=True)
    checkpoint.save(checkpoint.trained_state(config, load_network(base), CPU), out)


def result(config: Config, data: Data, base: Path, out: Path) -> dict[str, Any]:
    """One run: what it reaches, how small it is, and how long its rounds took."""
    if not (out / "checkpoint.pt").exists():
        begin(config, data, base, out)
    state = iterate(config, data, out, CPU, resume=True, progress=False)
    full, last = state.history[0], state.history[-1]
    loader = make_loader(config, data, CPU)
    assert state.passed is not None

    def test(saved: dict[str, Any]) -> float:
        network = place(measure.fold(from_saved(saved)), CPU)
        return accuracy(network, loader.batches("test"))

    assert state.full is not None
    return {
        "val_accuracy_full": full["val_accuracy"],
        "val_accuracy": last["val_accuracy"],
        "test_accuracy_full": test(state.full),
        "test_accuracy": test(state.passed),
        "lowest_after_surgery": min(line["val_accuracy_pruned"] for line in state.history[1:]),
        "parameters": last["parameters"] / full["parameters"],
        "batches": last["batches"] - full["batches"],
        "seconds": round(last["seconds"] - full["seconds"], 1),
    }


def main() -> None:
    """Run what isn't done yet, then record all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-schedules")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    path = options.out / "results.jsonl"
    rows = lines(path) if path.exists() else []
    done = {(row["preset"], row["base_width"], row["schedule"], row["seed"]) for row in rows}
    for (preset, width, of_seed, schedules), seed in product(SETS, options.seeds):
        data = of_seed(seed, options.cifar10)
        for name, changes in schedules.items():
            if (preset, width, name, seed) in done:
                continue
            home = options.out / f"{preset}-{width}" / f"seed{seed}"
            config = config_for(preset, width, seed, changes)
            found = result(config, data, home / "base.pt", home / name.replace(" ", "-"))
            key = {"preset": preset, "base_width": width, "schedule": name, "seed": seed}
            rows.append({**key, **found})
            with path.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(json.dumps(rows[-1]), flush=True)
    record("schedules", COMMAND, {"left": LEFT, "rows": rows, "machine": machine(CPU)})


if __name__ == "__main__":
    main()
