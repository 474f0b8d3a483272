"""What each knob of the loop does: one changed at a time, on the small trained network.

    python benchmarks/knobs.py [--out runs/bench-knobs]

Writes data/recorded_runs/knobs.json, which notebook 06 draws. Every run starts from data/small's
full network; a seed decides the order and the augmentation of the batches. What is done is not
done again, so an interrupted command goes on when it is given again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from recording import ROOT, record

from course_lib import checkpoint, small
from course_lib.config import Config
from course_lib.data import Data
from course_lib.iterate import iterate
from course_lib.report import machine

COMMAND = "python benchmarks/knobs.py"
SEEDS = (0, 1, 2)
LEFT = 0.43  # of the filters, and so about a fifth of the parameters
BUDGET = 240  # batches of fine-tuning, shared equally by the rounds
ROUNDS = 8
KEPT = (
    *("round", "filters", "parameters", "val_accuracy_pruned", "val_accuracy"),
    *("batches", "passed", "attempts"),
)


def schedule(rounds: int, budget: int = BUDGET) -> dict[str, Any]:
    """Equal rounds after which LEFT of the filters stay, with an equal share of the batches."""
    fraction = 1 - LEFT ** (1 / rounds)
    return {"rounds": rounds, "fraction": fraction, "finetune_batches": budget // rounds}


def settings() -> dict[str, dict[str, dict[str, Any]]]:
    """Knob → value as text → what is changed. The reference is 8 rounds of 30 batches, no gate."""
    return {
        "rounds": {str(n): schedule(n) for n in (1, 2, 4, 8, 16)},
        "rounds, three times the batches": {str(n): schedule(n, 3 * BUDGET) for n in (1, 8)},
        "finetune_batches": {str(n): {"finetune_batches": n} for n in (5, 10, 30, 90)},
        "scope": {"layer": {}, "network": {"scope": "network"}},
        # Down to a few percent of the parameters, so that every gate but the last one closes.
        "tolerance": {
            **{
                f"{tolerance:g}": {**DEEP, "gate": True, "tolerance": tolerance}
                for tolerance in (0.01, 0.02, 0.04)
            },
            "no gate": DEEP,
        },
    }


DEEP = {"rounds": 10, "fraction": 0.2, "finetune_batches": 30}


def config_for(seed: int, about: dict[str, Any], changes: dict[str, Any]) -> Config:
    """The small network's own options, the reference schedule, and one knob turned."""
    reference: dict[str, Any] = {
        "seed": seed,
        **schedule(ROUNDS),
        "gate": False,
        "curve_every": 10_000,  # a point at the end of each round, which the history has as well
        "curve_images": 64,
        "checkpoint_every": 10_000,
    }
    return Config(**{**about, **reference, **changes})


def run(out: Path, config: Config, data: Data) -> list[dict[str, Any]]:
    """The history of one run, begun, resumed, or read where it is done."""
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cpu")
    if not (out / "checkpoint.pt").exists():
        start = checkpoint.trained_state(config, small.load_small("full"), device)
        checkpoint.save(start, out)
    return iterate(config, data, out, device, resume=True, progress=False).history


def main() -> None:
    """Run what isn't done yet, then record all of it."""
    parser = argparse.ArgumentParser(description="What each knob of the loop does.")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-knobs")
    out = parser.parse_args().out
    about = small.small_card()["config"]
    data = small.small_data(train=12_000, val=2_000)
    runs = []
    for knob, values in settings().items():
        for value, changes in values.items():
            for seed in SEEDS:
                # The reference belongs to several knobs, and is run once.
                config = config_for(seed, about, changes)
                name = "-".join(f"{k}={v:.4g}" for k, v in folder_parts(config).items())
                history = run(out / name / f"seed{seed}", config, data)
                rows = [{name: line[name] for name in KEPT} for line in history]
                runs.append({"knob": knob, "value": value, "seed": seed, "history": rows})
                if knob == "scope":  # where the filters are gone tells why one does worse
                    runs[-1]["widths"] = history[-1]["widths"]
                print(knob, value, seed, history[-1]["val_accuracy"], flush=True)
    content = {"left": LEFT, "budget": BUDGET, "reference": config_for(0, about, {}).to_dict()}
    record("knobs", COMMAND, {**content, "runs": runs, "machine": machine(torch.device("cpu"))})


def folder_parts(config: Config) -> dict[str, float]:
    """What tells one setting's folder from another's."""
    return {
        "rounds": config.rounds,
        "fraction": config.fraction,
        "batches": config.finetune_batches,
        "network": config.scope == "network",
        "tolerance": config.tolerance if config.gate else 1,
    }


if __name__ == "__main__":
    main()
