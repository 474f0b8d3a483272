"""Why not train the small network from scratch? Pruned networks against others of the same size.

    python benchmarks/from_scratch.py [--out runs/from-scratch] [--seeds 0 1 2]

Writes data/recorded_runs/from_scratch.json. An eighth-width ResNet-18 is trained, then pruned and
fine-tuned in rounds, by filters and by single weights; what survives, or another network of its
shape, is then trained in the ways of `arms`. Every finished training is a line of trainings.jsonl,
so a run that was interrupted goes on when the command is given again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from recording import ROOT, lines, record
from torch import nn

from course_lib import data, measure, tickets
from course_lib.pruning import find_groups, l1, prune, select
from course_lib.report import machine
from course_lib.resnet import ResNet, resnet_config
from course_lib.training import Augmentation, Loader, accuracy, one_cycle, place

COMMAND = "python benchmarks/from_scratch.py"
CPU = torch.device("cpu")
SHAPE = (3, 48, 48)


@dataclass(frozen=True)
class Settings:
    """Every training has one cycle of the learning rate up to `rate`, and so has the fine-tuning of
    every round: on validation images of seed 0 that was better than `low_rate`, which is measured
    beside it.
    """

    base_width: int = 8
    batches: int = 200  # of the full network, before the first pruning
    rounds: int = 8
    finetune_batches: int = 40
    fraction: float = 0.12  # of every layer's filters, each round
    weights_left: tuple[float, ...] = (0.1, 0.03)  # of single weights, after rounds 5 and 8
    weight_rounds: tuple[int, ...] = (5, 8)
    rewind: int = 20  # batches after which the early weights are kept
    rate: float = 0.1
    low_rate: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 0.0005
    warm_up: float = 0.2
    batch_size: int = 64

    @property
    def total(self) -> int:
        """Batches of the pruned network in all."""
        return self.batches + self.rounds * self.finetune_batches

    def weights_after(self, round: int) -> float:
        """The share of single weights that is left after a round: the same factor each round up to
        the first share, and from there to the second."""
        (first, second), (near, far) = self.weights_left, self.weight_rounds
        if round <= near:
            return first ** (round / near)
        return first * (second / first) ** ((round - near) / (far - near))


SETTINGS = Settings()


class Bench:
    """One seed: its images, its initial weights, and what pruning found."""

    def __init__(self, seed: int, settings: Settings, cache: Path | None) -> None:
        self.seed, self.settings = seed, settings
        images = data.load("generated", image_size=SHAPE[1], seed=seed, cache=cache)
        self.loader = Loader(
            images, CPU, batch_size=settings.batch_size, seed=seed, augmentation=Augmentation()
        )
        self.full = self.fresh(seed)
        self.groups = find_groups(self.full, torch.zeros(1, *SHAPE))
        self.macs = measure.count_macs(self.full, SHAPE)

    def fresh(self, draw: int) -> ResNet:
        """A full network with the random weights of this draw."""
        torch.manual_seed(draw)
        return ResNet(resnet_config(18, 8, base_width=self.settings.base_width))

    def train(
        self,
        network: nn.Module,
        batches: int,
        *,
        phase: str = "base",
        rate: float | None = None,
        masks: tickets.Masks | None = None,
        at: Callable[[int], object] = bool,
    ) -> nn.Module:
        """The network, trained in place by one cycle; `at` is called after every batch."""
        s, peak = self.settings, rate or self.settings.rate
        network = place(network, CPU)
        if masks:
            tickets.apply_masks(network, masks)
        made = self.loader.training_batches(phase, 0, batches)
        how = {"momentum": s.momentum, "weight_decay": s.weight_decay, "warm_up": s.warm_up}
        losses = one_cycle(network, made, batches, peak, **how)
        for done, _ in enumerate(tickets.held(losses, network, masks or {}), start=1):
            at(done)
        return network

    def finetune(self, network: nn.Module, round: int, **more: Any) -> nn.Module:
        return self.train(network, self.settings.finetune_batches, phase=f"round{round}", **more)

    def test(self, network: nn.Module) -> float:
        return accuracy(network, self.loader.batches("test"))


def find(bench: Bench) -> dict[str, Any]:
    """Train the full network and prune it both ways; everything that the arms start from."""
    s = bench.settings
    found: dict[str, Any] = {"initial": tickets.remember(bench.full)}

    def keep_early(done: int) -> None:
        if done == s.rewind:
            found["early"] = tickets.remember(bench.full)

    bench.train(bench.full, s.batches, at=keep_early)
    found["full"] = tickets.remember(bench.full)
    found["full accuracy"] = bench.test(bench.full)
    found["filters"] = by_filters(bench, s.rate)
    found["low rate"] = by_filters(bench, s.low_rate)
    found["weights"] = by_weights(bench)
    return found


def by_filters(bench: Bench, rate: float) -> dict[str, Any]:
    """Rounds of pruning filters by L1 norm within each layer."""
    s, network = bench.settings, bench.full
    kept = {name: torch.arange(group.size) for name, group in bench.groups.items()}
    start, spent = {name: len(all_) for name, all_ in kept.items()}, bench.macs * s.batches
    for round in range(1, s.rounds + 1):
        groups = find_groups(network, torch.zeros(1, *SHAPE))
        keep = select(l1(network, groups), fraction=s.fraction, start=start, round=round, floor=2)
        kept = tickets.in_first_network(kept, keep)
        network = bench.finetune(prune(network, groups, keep), round, rate=rate)
        spent += measure.count_macs(network, SHAPE) * s.finetune_batches
    return {"kept": kept, "spent": spent, "accuracy": bench.test(network)}


def by_weights(bench: Bench) -> list[dict[str, Any]]:
    """Rounds of setting the smallest single weights of the whole network to zero."""
    s, network, found = bench.settings, tickets.rewound(bench.full, bench.full.state_dict()), []
    for round in range(1, s.rounds + 1):
        left = s.weights_after(round)
        masks = tickets.magnitude_masks(tickets.weights_of(network), left)
        network = bench.finetune(network, round, masks=masks)
        if round in s.weight_rounds:
            batches = s.batches + round * s.finetune_batches
            result = {"left": left, "masks": masks, "batches": batches}
            found.append({**result, "spent": bench.macs * batches, "accuracy": bench.test(network)})
    return found


Arm = tuple[dict[str, Any], Callable[[], nn.Module] | None]


def arms(bench: Bench, found: dict[str, Any]) -> Iterator[Arm]:
    """What is known of every training before it is done, and how to do it (None: done by `find`).

    `compute`: multiply-accumulates of a forward pass times images, of the training itself; a
    backward pass costs about twice that for all alike. `compute_before`: what finding it cost.
    """
    yield from full_arms(bench, found)
    yield from filter_arms(bench, found)
    for pruned in found["weights"]:
        yield from weight_arms(bench, found, pruned)


def full_arms(bench: Bench, found: dict[str, Any]) -> Iterator[Arm]:
    """The full network: as it was when pruning began, and trained for as long as the pruned one."""
    s, size = bench.settings, bench.settings.batch_size
    parameters = measure.count_parameters(bench.full)
    about = {"kind": "full", "left": 1.0, "parameters": parameters, "macs": bench.macs}
    for arm, batches in (("base", s.batches), ("longer", s.total)):
        cost = {"batches": batches, "compute": batches * size * bench.macs, "compute_before": 0}
        line = {**about, "arm": arm, **cost}
        if arm == "base":
            yield {**line, "test_accuracy": found["full accuracy"]}, None
        else:
            yield line, lambda: bench.train(bench.fresh(bench.seed), s.total)


def filter_arms(bench: Bench, found: dict[str, Any]) -> Iterator[Arm]:
    """Networks of the widths that pruning filters arrived at."""
    s, size, kept = bench.settings, bench.settings.batch_size, found["filters"]["kept"]
    start = {name: group.size for name, group in bench.groups.items()}

    def small(state: tickets.State) -> nn.Module:
        return prune(tickets.rewound(bench.full, state), bench.groups, kept)

    def new() -> nn.Module:
        return prune(bench.fresh(1_000 + bench.seed), bench.groups, kept)

    def one_shot() -> nn.Module:
        full = tickets.rewound(bench.full, found["full"])
        scores = l1(full, bench.groups)
        keep = select(scores, fraction=s.fraction, start=start, round=s.rounds, floor=2)
        narrow = prune(full, bench.groups, keep)
        return bench.train(narrow, s.total - s.batches, phase="one shot")

    macs = measure.count_macs(new(), SHAPE)
    parameters = measure.count_parameters(new())
    left = parameters / measure.count_parameters(bench.full)
    about = {"kind": "filters", "left": left, "parameters": parameters, "macs": macs}
    spent, base = found["filters"]["spent"] * size, s.batches * bench.macs * size
    longer = tickets.equal_compute_batches([(1, spent)], macs * size)

    def line(arm: str, batches: int, before: int = 0, **more: Any) -> dict[str, Any]:
        compute = more.pop("compute", batches * macs * size)
        cost = {"batches": batches, "compute": compute, "compute_before": before}
        return {**about, "arm": arm, **cost, **more}

    for arm, key in (("pruned", "filters"), ("pruned, low rate", "low rate")):
        yield line(arm, s.total, compute=spent, test_accuracy=found[key]["accuracy"]), None
    shot = base + (s.total - s.batches) * macs * size
    yield line("one shot", s.total, compute=shot), one_shot
    yield line("scratch", s.total), lambda: bench.train(new(), s.total)
    yield line("ticket", s.total, spent), lambda: bench.train(small(found["initial"]), s.total)
    rest = s.total - s.rewind
    yield line("rewound", rest, spent), lambda: bench.train(small(found["early"]), rest)
    yield line("scratch, equal compute", longer), lambda: bench.train(new(), longer)


def weight_arms(bench: Bench, found: dict[str, Any], pruned: dict[str, Any]) -> Iterator[Arm]:
    """Networks of the full widths in which only the winning weights aren't zero."""
    s, masks, size = bench.settings, pruned["masks"], bench.settings.batch_size
    removed = sum(int((~mask).sum()) for mask in masks.values())
    parameters = measure.count_parameters(bench.full) - removed
    about = {"kind": "weights", "left": pruned["left"], "parameters": parameters}
    spent = pruned["spent"] * size

    def line(arm: str, batches: int, before: int = 0, **more: Any) -> dict[str, Any]:
        cost = {"compute": batches * bench.macs * size, "compute_before": before}
        return {**about, "macs": bench.macs, "arm": arm, "batches": batches, **cost, **more}

    def trained(network: nn.Module, batches: int) -> Callable[[], nn.Module]:
        return lambda: bench.train(network, batches, masks=masks)

    def from_state(name: str) -> nn.Module:
        return tickets.rewound(bench.full, found[name])

    total, rest = pruned["batches"], pruned["batches"] - s.rewind
    yield line("pruned", total, test_accuracy=pruned["accuracy"]), None
    yield line("ticket", total, spent), trained(from_state("initial"), total)
    yield line("rewound", rest, spent), trained(from_state("early"), rest)
    yield line("new weights", total, spent), trained(bench.fresh(1_000 + bench.seed), total)


def run_seed(bench: Bench, out: Path, until: float) -> bool:
    """Do what isn't in trainings.jsonl yet, begin none after `until`; True if all is done."""
    done_file, state_file = out / "trainings.jsonl", out / f"seed{bench.seed}.pt"
    if not state_file.exists():
        torch.save(find(bench), state_file)
    found = torch.load(state_file, weights_only=True)
    done = lines(done_file) if done_file.exists() else []
    known = {(row["seed"], row["kind"], row["left"], row["arm"]) for row in done}
    for about, training in arms(bench, found):
        line = {"seed": bench.seed, **about}
        if (bench.seed, about["kind"], about["left"], about["arm"]) in known:
            continue
        if time.monotonic() > until:
            return False
        if training is not None:
            started = time.process_time()
            network = training()
            line["cpu_seconds"] = round(time.process_time() - started, 1)
            line["test_accuracy"] = bench.test(network)
        with done_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(
            f"seed {bench.seed}, {line['kind']} {line['left']:.1%}, {line['arm']}: "
            f"{line['test_accuracy']:.2%} after {line['batches']} batches",
            flush=True,
        )
    return True


def main() -> None:
    """Run what isn't done yet, then record all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "from-scratch")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no training after these")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        if not run_seed(Bench(seed, SETTINGS, None), options.out, until):
            return
    rows = lines(options.out / "trainings.jsonl")
    content = {"settings": asdict(SETTINGS), "rows": rows, "machine": machine(CPU)}
    record("from_scratch", COMMAND, content)


if __name__ == "__main__":
    main()
