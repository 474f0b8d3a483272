"""How small a network can get: accuracy against size, multiply-accumulates and speed.

    python benchmarks/frontier.py [--cifar10 DIR]

For generated vehicles it goes on from benchmarks/laptop.py (full width); with `--cifar10` it draws
that of CIFAR-10 instead, from the networks of benchmarks/against_torch_pruning.py or recipes.py
(quarter width). Of each seed's full network one cut by L1 norm within each layer makes a network of
each size, and all get the same batches of fine-tuning. The networks are kept, and timed at the end
in one alternating pass: nothing else should run then. Resumable. Writes
data/recorded_runs/frontier.json or frontier_cifar10.json.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from recording import ROOT, in_parts, record

from course_lib import measure
from course_lib.checkpoint import write_whole
from course_lib.config import PRESETS
from course_lib.data import Data, load
from course_lib.iterate import make_loader
from course_lib.pruning import find_groups, l1, prune_until
from course_lib.report import machine
from course_lib.resnet import ResNet, load_network, saved_form
from course_lib.training import Loader, accuracy, one_cycle, place

COMMAND = "python benchmarks/frontier.py"
CPU = torch.device("cpu")
SEEDS = (0, 1, 2)
SHARES = (0.5, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01)  # of the parameters
BATCHES, RATE = 400, 0.1  # of fine-tuning; and longer at the share that is the goal
LONGER = ((0.05, 800),)  # as many as the laptop preset fine-tunes in all
FLOOR, TIMED = 2, 64  # filters every layer keeps; images in a timed batch


@dataclass(frozen=True)
class Problem:
    """What a frontier is drawn for: images, and where the trained networks are."""

    name: str
    parent: Callable[[int], Path]
    loader: Callable[[int], Loader]
    image: tuple[int, int, int]


def batches_of(data: Data, batch: int, seed: int) -> Loader:
    """Batches of a data set as a run of this seed draws them."""
    return make_loader(replace(PRESETS["laptop"], batch_size=batch, seed=seed), data, CPU)


def vehicles() -> Problem:
    """Generated vehicles at full width; every seed draws images of its own, as its run did."""
    return Problem(
        "vehicles",
        lambda seed: ROOT / "runs" / "bench-laptop" / f"seed{seed}" / "full.pt",
        lambda seed: batches_of(load("generated", image_size=None, seed=seed), 64, seed),
        (3, 48, 48),
    )


def cifar10(folder: str) -> Problem:
    """CIFAR-10 at a quarter of the width, split as it was when the networks were trained."""
    data = load(folder, image_size=32)
    return Problem(
        "cifar10",
        lambda seed: ROOT / "runs" / "bench-torch-pruning" / f"full{seed}.pt",
        lambda seed: batches_of(data, 128, seed),
        (3, 32, 32),
    )


def parent(problem: Problem, seed: int) -> ResNet:
    """The trained network of a seed. Raises SystemExit where it hasn't been made."""
    path = problem.parent(seed)
    if not path.exists():
        raise SystemExit(f"{path.relative_to(ROOT)} isn't there: run the benchmarks named above.")
    return place(load_network(path), CPU)


def cut(full: ResNet, share: float, image: tuple[int, int, int]) -> ResNet:
    """The network with at most a share of the parameters, before it is fine-tuned."""
    if share == 1:
        return copy.deepcopy(full)
    groups = find_groups(full, torch.zeros(1, *image))
    most = share * measure.count_parameters(full)
    small, _ = prune_until(
        full,
        groups,
        l1(full, groups),
        lambda narrow: measure.count_parameters(narrow) <= most,
        floor=FLOOR,
    )
    return place(small, CPU)


def sizes(problem: Problem) -> list[tuple[float, int]]:
    """What is made of each full network: the share of its parameters, batches of fine-tuning."""
    found: list[tuple[float, int]] = [(1, 0), *((share, BATCHES) for share in SHARES)]
    return [*found, *LONGER] if problem.name == "vehicles" else found


def point(problem: Problem, seed: int, share: float, count: int, out: Path) -> dict[str, Any]:
    """One network: made, fine-tuned, kept, and what it reaches; 1 is the full network."""
    full, loader = parent(problem, seed), problem.loader(seed)
    network = cut(full, share, problem.image)
    if share < 1:
        batches = loader.training_batches("finetune", 0, count)
        for _ in one_cycle(network, batches, count, RATE):
            pass
    write_whole(kept(out, problem, seed, share, count), partial(torch.save, saved_form(network)))
    folded = measure.fold(network)
    macs = partial(measure.count_macs, image_shape=problem.image)
    return {
        "problem": problem.name,
        "seed": seed,
        "share": share,
        "batches": count,
        "val_accuracy": accuracy(folded, loader.batches("val")),
        "test_accuracy": accuracy(folded, loader.batches("test")),
        "parameters": measure.count_parameters(network) / measure.count_parameters(full),
        "macs": macs(network) / macs(full),
    }


def kept(out: Path, problem: Problem, seed: int, share: float, count: int) -> Path:
    """The file of a network."""
    return out / f"{problem.name}-{seed}-{share}-{count}.pt"


def timed(problem: Problem, out: Path) -> dict[float, dict[str, Any]]:
    """Images per second of seed 0's networks against the full one's, at each share."""
    networks = {
        str(share): load_network(kept(out, problem, 0, share, BATCHES if share < 1 else 0))
        for share in (1, *SHARES)
    }
    images = torch.randn(TIMED, *problem.image)
    readings = measure.images_per_second(networks, images, passes=25)
    found = {}
    for share in SHARES:
        ratios = [a / b for a, b in zip(readings[str(share)], readings["1"], strict=True)]
        ends = [round(ratio, 3) for ratio in (min(ratios), max(ratios))]
        found[share] = {"middle": round(median(ratios), 3), "range": ends}
    return found


def main() -> None:
    """Run what isn't done yet, then time and record it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-frontier")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    problem = cifar10(options.cifar10) if options.cifar10 else vehicles()
    parts = {
        f"seed {seed}, {share:.0%}, {count} batches": partial(
            point, problem, seed, share, count, options.out
        )
        for seed in SEEDS
        for share, count in sizes(problem)
    }
    done = in_parts(options.out / f"{problem.name}.json", {"rate": RATE}, parts)
    points = [part["result"] for part in done.values()]
    speeds = timed(problem, options.out)
    keys = ("val_accuracy", "test_accuracy", "parameters", "macs")
    rows = []
    for share, count in sizes(problem):
        found = [x for x in points if (x["share"], x["batches"]) == (share, count)]
        reached = {key: [round(line[key], 5) for line in found] for key in keys}
        rows.append({"share": share, "batches": count, **reached, "speed": speeds.get(share)})
    content = {"rate": RATE, "seeds": list(SEEDS), "rows": rows, "machine": machine(CPU)}
    if options.cifar10:
        record("frontier_cifar10", f"{COMMAND} --cifar10 DIR", content)
    else:
        record("frontier", COMMAND, content)


if __name__ == "__main__":
    main()
