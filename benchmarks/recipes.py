"""The best recipe of each side at equal cost, ours and Torch-Pruning's, on CIFAR-10.

    OMP_NUM_THREADS=1 python benchmarks/recipes.py --cifar10 DIR

Goes on from the record and the networks of benchmarks/against_torch_pruning.py. Each side begins
with the pruner that had the best validation accuracy there and gets six trials on one seed at 4
times fewer multiply-accumulates: distillation from the unpruned network, other learning rates,
three cuts instead of one, and one of its own: ours the second-best criterion, theirs training with
its group penalty first. Validation chooses; then each side's best recipe runs at 2, 4 and 8 times
fewer for every seed, and the test set is looked at. All have the same number of batches. Resumable;
writes data/recorded_runs/recipes.json.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import against_torch_pruning as one_cut
import peer
import torch
from against_torch_pruning import BATCH, CPU, FEWER, IMAGE, IMAGES, SEEDS
from recording import RECORDED, ROOT, lines, record
from torch import nn

from course_lib import measure
from course_lib.data import load
from course_lib.report import machine
from course_lib.resnet import ResNet
from course_lib.training import (
    Augmentation,
    Loader,
    accuracy,
    make_optimizer,
    make_schedule,
    one_cycle,
    place,
    train,
)

COMMAND = "OMP_NUM_THREADS=1 python benchmarks/recipes.py --cifar10 DIR"
BATCHES = 400
PENALISED = 130  # of them, where the group penalty comes first
RATES = (0.05, 0.2)


@dataclass(frozen=True)
class Recipe:
    """How a side goes from the trained network to the pruned one."""

    side: str
    pruner: str
    rate: float = 0.1
    distill: bool = False
    cuts: int = 1
    penalty: bool = False


def penalised(network: nn.Module, loader: Loader, rate: float) -> nn.Module:
    """Trained on with Torch-Pruning's group penalty, as its documentation does before pruning."""
    add_penalty = peer.penalty(network, torch.zeros(1, *IMAGE))
    optimizer = make_optimizer(network, rate, 0.9, 5e-4)
    optimizer.register_step_pre_hook(lambda *_: add_penalty(network))
    schedule = make_schedule(optimizer, rate, PENALISED, 0.2)
    for _ in train(network, optimizer, schedule, loader.training_batches("sl", 0, PENALISED)):
        pass
    return network


def finetune(
    network: nn.Module, loader: Loader, recipe: Recipe, phase: str, batches: int, full: nn.Module
) -> None:
    """One cycle of the learning rate, with the full network as the teacher or without."""
    teacher = measure.fold(full) if recipe.distill else None
    data = loader.training_batches(phase, 0, batches)
    for _ in one_cycle(network, data, batches, recipe.rate, teacher=teacher):
        pass


def follow(recipe: Recipe, full: ResNet, fewer: int, loader: Loader) -> nn.Module:
    """The pruned network that a recipe leads to, after BATCHES batches in all."""
    macs = measure.count_macs(full, IMAGE)
    network: Any = copy.deepcopy(full)
    left = BATCHES
    if recipe.penalty:
        network = penalised(network, loader, recipe.rate)
        left -= PENALISED
    batches = list(loader.sample(IMAGES))
    for cut in range(1, recipe.cuts + 1):
        target = macs / fewer ** (cut / recipe.cuts)
        if recipe.side == "ours":
            network = one_cut.prune_to(recipe.pruner, network, target, batches, loader.seed)
        else:
            example = torch.zeros(1, *IMAGE)
            network = peer.prune_to(recipe.pruner, network, target, example, batches)
        network = place(network, CPU)
        finetune(network, loader, recipe, f"cut {cut}", left // recipe.cuts, full)
    return network


class Notebook:
    """Results on disk, one a line: a recipe, a target and a seed are only ever run once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.path = options.out / "recipes.jsonl"
        self.done = lines(self.path) if self.path.exists() else []
        self.out, self.data = options.out, load(options.cifar10, image_size=32)

    def result(self, recipe: Recipe, fewer: int, seed: int, final: bool) -> dict[str, Any]:
        """One line; the test set is only looked at in the `final` ones."""
        about = {**asdict(recipe), "fewer": fewer, "seed": seed, "final": final}
        for line in self.done:
            if all(line[key] == value for key, value in about.items()):
                return line
        loader = Loader(self.data, CPU, batch_size=BATCH, seed=seed, augmentation=Augmentation())
        full = one_cut.base(self.out, self.data, loader, seed)
        network = measure.fold(narrow := follow(recipe, full, fewer, loader))
        line = {
            **about,
            "val_accuracy": accuracy(network, loader.batches("val")),
            "test_accuracy": accuracy(network, loader.batches("test")) if final else None,
            "parameters": measure.count_parameters(narrow) / measure.count_parameters(full),
            "macs": measure.count_macs(narrow, IMAGE) / measure.count_macs(full, IMAGE),
        }
        self.done.append(line)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(about, f"{line['val_accuracy']:.4f}", flush=True)
        return line


def ranking(rows: list[dict[str, Any]], side: str) -> list[str]:
    """The pruners of a side, the best validation accuracy first, over all targets and seeds."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["side"] == side:
            found.setdefault(row["pruner"], []).append(row["val_accuracy"])
    return sorted(found, key=lambda name: -mean(found[name]))


def trials(notebook: Notebook, side: str, pruners: list[str]) -> Iterator[tuple[Recipe, float]]:
    """Six recipes of a side, each a change to the best so far."""

    def tried(recipe: Recipe) -> tuple[Recipe, float]:
        return recipe, notebook.result(recipe, 4, SEEDS[0], final=False)["val_accuracy"]

    best = tried(Recipe(side, pruners[0]))
    yield best
    own = {"pruner": pruners[1]} if side == "ours" else {"pruner": "group sparsity"}
    changes: list[dict[str, Any]] = [
        {"distill": True},
        *({"rate": rate} for rate in RATES),
        {"cuts": 3},
        {**own, "penalty": side == "theirs"},
    ]
    for change in changes:
        trial = tried(replace(best[0], **change))
        yield trial
        best = max(best, trial, key=lambda pair: pair[1])


def main() -> None:
    """Run what isn't done yet, then record it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-torch-pruning")
    options = parser.parse_args()
    rows = json.loads((RECORDED / "against_torch_pruning.json").read_text(encoding="utf-8"))["rows"]
    before = [{**row, "val_accuracy": reached} for row in rows for reached in row["val_accuracy"]]
    notebook = Notebook(options)
    content: dict[str, Any] = {"batches": BATCHES, "seeds": list(SEEDS), "sides": {}}
    for side in ("ours", "theirs"):
        tried = list(trials(notebook, side, ranking(before, side)))
        best = max(tried, key=lambda pair: pair[1])[0]
        finals = {
            fewer: [notebook.result(best, fewer, seed, final=True) for seed in SEEDS]
            for fewer in FEWER
        }
        keys = ("val_accuracy", "test_accuracy", "parameters", "macs")
        content["sides"][side] = {
            "trials": [{**asdict(recipe), "val_accuracy": round(v, 5)} for recipe, v in tried],
            "best": asdict(best),
            "results": {
                fewer: {key: [round(line[key], 5) for line in found] for key in keys}
                for fewer, found in finals.items()
            },
        }
    record("recipes", COMMAND, {**content, "machine": machine(CPU)})


if __name__ == "__main__":
    main()
