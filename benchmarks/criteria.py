"""Every criterion on the same trained networks: accuracy right after surgery and after fine-tuning.

    OMP_NUM_THREADS=1 python benchmarks/criteria.py [--out runs/bench-criteria]

Writes data/recorded_runs/criteria.json. Three quarter-width ResNet-18, which differ in their seed
only, are trained on generated vehicles. Of each, every criterion removes half of the filters at
once: within each layer, across the network with scores divided by their layer's mean, and across
the network with raw scores. All get the same batches of fine-tuning. Then the same half goes in
eight rounds, within each layer and across the network, where no layer loses more than a run's own
cap allows in one round. Each result is a line of results.jsonl: what was interrupted goes on when
the command is given again, and a criterion that is new is added. Rows of the record are kept where
the networks, made anew, validate exactly as the record says; `--anew` measures all of them again.
About an hour and a quarter on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from recording import RECORDED, ROOT, lines, record

from course_lib import measure
from course_lib.checkpoint import write_whole
from course_lib.data import Data
from course_lib.pruning import CRITERIA, find_groups, prune, select
from course_lib.report import machine
from course_lib.resnet import ResNet, load_network, resnet_config, saved_form
from course_lib.small import small_data
from course_lib.training import Augmentation, Loader, accuracy, generator, one_cycle, place

COMMAND = "OMP_NUM_THREADS=1 python benchmarks/criteria.py"
SEEDS = (0, 1, 2)
DRAWS = 3  # of the random criterion, per network: its own spread counts too
LEFT = 0.5  # of the filters
FLOOR = 2
BASE = {"batches": 700, "rate": 0.1}
FINETUNE = {"batches": 100, "rate": 0.03}
ROUNDS, PER_ROUND = 8, {"batches": 50, "rate": 0.03}
PER_ROUND_CAP = 0.2  # a run's own default
IMAGES = 512  # training images that a criterion looks at
SIZE = 48
SELECTIONS: dict[str, dict[str, Any]] = {
    "layer": {"scope": "layer"},
    # Half of all filters must be able to go at once, so the cap only keeps layers from vanishing.
    "network": {"scope": "network", "cap": 0.9},
    "raw": {"scope": "network", "cap": 1.0, "normalise": False},
}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """One line of the results, by what decides it."""

    schedule: str  # "one-shot" or "rounds"
    selection: str
    criterion: str
    seed: int
    draw: int = 0


CASE = tuple(Case.__annotations__)
ROW = CASE[:3]  # what a row of the record is about


def cases() -> Iterator[Case]:
    """All there is to do, the main comparison first."""
    # Ablating every filter anew in each round would take longer than all the fine-tuning.
    unhurried = [name for name in CRITERIA if name != "critical"]
    for schedule, selection, names in (
        ("one-shot", "layer", list(CRITERIA)),
        ("one-shot", "network", list(CRITERIA)),
        ("rounds", "layer", unhurried),
        ("one-shot", "raw", list(CRITERIA)),
        ("rounds", "network", unhurried),
    ):
        for seed in SEEDS:
            for name in names:
                for draw in range(DRAWS if name == "random" else 1):
                    yield Case(schedule, selection, name, seed, draw)


def make_loader(data: Data, seed: int) -> Loader:
    """Batches drawn by the seed, augmented as in a run."""
    return Loader(data, CPU, seed=seed, augmentation=Augmentation())


def fit(network: ResNet, loader: Loader, phase: str, batches: int, rate: float) -> None:
    """Train in place: one cycle, a fresh optimiser, the same batches for every criterion."""
    for _ in one_cycle(network, loader.training_batches(phase, 0, batches), batches, rate):
        pass


def validated(network: ResNet, loader: Loader) -> float:
    """Accuracy on the validation set, batch norm folded."""
    return accuracy(measure.fold(network), loader.batches("val"))


def base(out: Path, data: Data, seed: int) -> ResNet:
    """The trained network of a seed, made once."""
    path = out / f"full{seed}.pt"
    if not path.exists():
        torch.manual_seed(seed)
        network = place(ResNet(resnet_config(18, len(data.classes), base_width=16)), CPU)
        fit(network, make_loader(data, seed), "base", **BASE)
        write_whole(path, partial(torch.save, saved_form(network)))
    return place(load_network(path), CPU)


def cut(
    network: ResNet, loader: Loader, case: Case, step: int, of: int, start: dict[str, int]
) -> tuple[ResNet, float]:
    """Surgery number `step` of `of`; and the CPU seconds that scoring took."""
    groups = find_groups(network, torch.zeros(1, 3, SIZE, SIZE))
    draws = generator(case.seed, case.criterion, case.draw, step)
    batches = list(loader.sample(IMAGES))
    clock = time.process_time()
    scores = CRITERIA[case.criterion](network, groups, batches, generator=draws)
    seconds = time.process_time() - clock
    fraction = 1 - LEFT ** (1 / of)
    options = dict(SELECTIONS[case.selection])
    if case.schedule == "rounds" and case.selection == "network":
        options["cap"] = PER_ROUND_CAP
    keep = select(scores, fraction=fraction, round=step, start=start, floor=FLOOR, **options)
    return place(prune(network, groups, keep), CPU), seconds


def result(case: Case, network: ResNet, loader: Loader) -> dict[str, Any]:
    """One line: what is left of the network, what it answers, what scoring took."""
    groups = find_groups(network, torch.zeros(1, 3, SIZE, SIZE))
    start = {name: group.size for name, group in groups.items()}
    full, seconds, after_surgery = network, [], []
    rounds = ROUNDS if case.schedule == "rounds" else 1
    for step in range(1, rounds + 1):
        network, took = cut(network, loader, case, step, rounds, start)
        seconds.append(took)
        after_surgery.append(validated(network, loader))
        phase = "finetune" if rounds == 1 else f"round {step}"
        fit(network, loader, phase, **(FINETUNE if rounds == 1 else PER_ROUND))
    narrow = find_groups(network, torch.zeros(1, 3, SIZE, SIZE))
    image = (3, SIZE, SIZE)
    return {
        **asdict(case),
        "accuracy_pruned": after_surgery[-1] if rounds == 1 else min(after_surgery),
        "accuracy": validated(network, loader),
        "parameters": measure.count_parameters(network) / measure.count_parameters(full),
        "macs": measure.count_macs(network, image) / measure.count_macs(full, image),
        "filters": sum(group.size for group in narrow.values()) / sum(start.values()),
        "left": [group.size / start[name] for name, group in narrow.items()],
        "scoring_seconds": mean(seconds),
    }


def settings() -> dict[str, Any]:
    """What all results have in common."""
    return {
        "filters_left": LEFT,
        "finetune_batches": FINETUNE["batches"],
        "rounds": ROUNDS,
        "batches_per_round": PER_ROUND["batches"],
        "images_scored": IMAGES,
        "seeds": list(SEEDS),
        "draws_of_random": DRAWS,
    }


def recorded_before(full: list[float]) -> dict[str, Any]:
    """The record, if it has these settings and networks that validate as these do; else no rows."""
    path = RECORDED / "criteria.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    same = before.get("settings") == settings() and before["full"]["accuracy"] == full
    return before if same else {"rows": []}


def summary(
    results: list[dict[str, Any]], full: list[float], before: dict[str, Any]
) -> dict[str, Any]:
    """What the notebook and docs/results.md read: a row per schedule, selection and criterion."""
    rows: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for line in results:
        rows.setdefault(tuple(line[key] for key in ROW), []).append(line)
    keys = ("accuracy_pruned", "accuracy", "parameters", "macs")
    return {
        "full": {"accuracy": full, "batches": BASE["batches"]},
        "settings": settings(),
        "kept": {"rows": len(before["rows"]), **before.get("source", {})},
        "rows": before["rows"]
        + [
            {
                **dict(zip(ROW, name, strict=True)),
                **{key: [round(line[key], 5) for line in found] for key in keys},
                "narrowest": round(min(min(line["left"]) for line in found), 4),
                "scoring_seconds": round(mean(line["scoring_seconds"] for line in found), 4),
            }
            for name, found in rows.items()
        ],
        "machine": machine(CPU),
    }


def main() -> None:
    """Run what isn't done yet, then record it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-criteria")
    parser.add_argument("--anew", action="store_true", help="keep no row of the record")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "results.jsonl"
    data = small_data(train=12_000, val=2_000)
    networks = {seed: base(options.out, data, seed) for seed in SEEDS}
    loaders = {seed: make_loader(data, seed) for seed in SEEDS}
    full = [round(validated(networks[seed], loaders[seed]), 5) for seed in SEEDS]
    before = {"rows": []} if options.anew else recorded_before(full)
    kept = {tuple(row[key] for key in ROW) for row in before["rows"]}
    results = lines(path) if path.exists() else []
    done = [Case(*(line[key] for key in CASE)) for line in results]
    for case in cases():
        if case in done or tuple(getattr(case, key) for key in ROW) in kept:
            continue
        line = result(case, networks[case.seed], loaders[case.seed])
        results.append(line)
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(case, f"{line['accuracy_pruned']:.3f} → {line['accuracy']:.3f}", flush=True)
    found = [line for line in results if tuple(line[key] for key in ROW) not in kept]
    record("criteria", COMMAND, summary(found, full, before))


if __name__ == "__main__":
    main()
