"""The laptop preset over seeds, and beside it the fair control.

    python benchmarks/laptop.py [--out runs/bench-laptop] [--seeds 0 1 2]

Writes data/recorded_runs/laptop.json, and each seed's whole run beside it. The control is the full
network trained for as many batches as the pruned one has had in all (seed 0). A run that was
interrupted goes on when the command is given again; nothing else should run meanwhile, since
seconds and images per second are measured.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

from recording import ROOT, record, run

COMMAND = "python benchmarks/laptop.py"


def table(runs: dict[str, dict[str, Any]], control: dict[str, Any]) -> dict[str, Any]:
    """What the README and docs/results.md quote: a row a seed, the means, the control."""
    rows = []
    for seed, result in runs.items():
        summary = result["summary"]
        rows.append(
            {
                "seed": int(seed),
                "val_accuracy_full": summary["full"]["val_accuracy"],
                "test_accuracy_full": summary["full"]["test_accuracy"],
                "test_accuracy_pruned": summary["final"]["test_accuracy"],
                **{f"ratio_{name}": value for name, value in summary["ratios"].items()},
                "seconds": summary["seconds"],
            }
        )
    names = ("test_accuracy_full", "test_accuracy_pruned", "ratio_images_per_second")
    return {
        "seeds": rows,
        "mean": {name: mean(row[name] for row in rows) for name in names},
        "mean_test_accuracy_change": mean(row["ratio_test_accuracy_change"] for row in rows),
        "control": {
            "what": "full network, seed 0, as many batches as the pruned one in all",
            "batches": control["history"][0]["batches"],
            "test_accuracy": control["summary"]["full"]["test_accuracy"],
            "seconds": control["summary"]["seconds"],
        },
        "machine": next(iter(runs.values()))["summary"]["machine"],
    }


def main() -> None:
    """Run what isn't done yet, then record all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-laptop")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    runs = {
        str(seed): run(options.out / f"seed{seed}", "--preset", "laptop", "--seed", str(seed))
        for seed in options.seeds
    }
    batches = runs[str(options.seeds[0])]["history"][-1]["batches"]
    control = run(
        options.out / "control",
        *("--preset", "laptop", "--rounds", "0", "--batches", str(batches)),
        *("--seed", str(options.seeds[0])),
    )
    record("laptop", COMMAND, table(runs, control))
    for seed, result in runs.items():
        record(f"laptop_seed{seed}", COMMAND, result)
    print(json.dumps(table(runs, control), indent=1))


if __name__ == "__main__":
    main()
