"""Make the small trained network of data/small/ again: train it, prune it, and write its card.

    python benchmarks/small_network.py [--out runs/small-network]

Writes data/small/full.pt, pruned.pt and card.json. A quarter-width ResNet-18 with projections
everywhere goes through the course's own loop; both networks are kept in half precision, and the
card has what they reach as they are loaded from there. The control is the full network trained for
as many batches as the pruned one has had in all. What was interrupted goes on when the command is
given again.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from recording import ROOT, run, source

from course_lib import measure, small, vehicles
from course_lib.checkpoint import write_text, write_whole
from course_lib.config import Config
from course_lib.data import Data
from course_lib.pruning import find_groups
from course_lib.resnet import load_network
from course_lib.run import load_data
from course_lib.training import Loader, predict

TRAINING = ("--preset", "laptop", "--device", "cpu", "--base-width", "16", "--curve-every", "50")
PRUNING = (
    *("--batches", "2000", "--rounds", "16"),
    *("--finetune-batches", "200", "--final-batches", "0"),
)
RUN_FILES = {"full": "full.pt", "pruned": "network.pt"}
FIRST = 1_000  # test images that the card counts by themselves, so that a test can count them too


def write_networks(out: Path, folder: Path) -> None:
    """Both networks of a finished run, in half precision, as data/small/ has them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in RUN_FILES.items():
        saved = torch.load(out / file, weights_only=True, map_location="cpu")
        about = {key: saved[key] for key in ("classes", "mean", "std", "image_size")}
        halved = small.halved(load_network(out / file), **about)
        write_whole(folder / f"{name}.pt", partial(torch.save, halved))


def about_data(data: Data) -> dict[str, Any]:
    """Which images, and how they are standardised."""
    about = {"name": data.name, "version": vehicles.VERSION, **data.about()}
    return {**about, "images": data.fingerprint()["images"]}


def measured(name: str, folder: Path, data: Data) -> dict[str, Any]:
    """What a network is and reaches, as it is loaded from half precision."""
    network = small.load_small(name, folder)
    size = data.test.images.shape[1]
    loader = Loader(data, torch.device("cpu"))
    right = {}
    for part in ("val", "test"):
        logits, labels = predict(network, loader.batches(part))
        right[part] = logits.argmax(1) == labels
    groups = find_groups(network, torch.zeros(1, 3, size, size))
    return {
        "file": f"{name}.pt",
        "file_bytes": (folder / f"{name}.pt").stat().st_size,
        "filters": sum(group.size for group in groups.values()),
        "parameters": measure.count_parameters(network),
        "macs": measure.count_macs(network, (3, size, size)),
        "val_accuracy": right["val"].double().mean().item(),
        "test_accuracy": right["test"].double().mean().item(),
        "first_test_images": FIRST,
        "right_of_first": int(right["test"][:FIRST].sum()),
    }


def card(
    folder: Path, data: Data, pruned: dict[str, Any], control: dict[str, Any]
) -> dict[str, Any]:
    """What data/small/card.json holds; `pruned` and `control` are the two runs."""
    summary, history = pruned["summary"], pruned["history"]
    last = summary["final"]["round"]
    networks = {name: measured(name, folder, data) for name in small.NAMES}
    for name, key, line in (("full", "full", 0), ("pruned", "final", last)):
        networks[name]["test_accuracy_in_float32"] = summary[key]["test_accuracy"]
        networks[name]["batches"] = history[line]["batches"]
    full, small_one = networks["full"], networks["pruned"]
    counted = ("file_bytes", "filters", "parameters", "macs")
    return {
        "source": source(small.COMMAND),
        "config": summary["config"],
        "data": {**about_data(data), "seed": summary["config"]["seed"]},
        "rounds_passed": summary["rounds_passed"],
        "networks": networks,
        "ratios": {key: small_one[key] / full[key] for key in counted},
        "test_accuracy_change": small_one["test_accuracy"] - full["test_accuracy"],
        "control": {
            "what": "full network, as many batches as the pruned one in all, in float32",
            "batches": control["history"][0]["batches"],
            "test_accuracy": control["summary"]["full"]["test_accuracy"],
        },
        "seconds": {
            "full and pruned": summary["seconds"],
            "control": control["summary"]["seconds"],
        },
        "machine": summary["machine"],
    }


def main() -> None:
    """Run what isn't done yet, then write the networks and their card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "small-network")
    options = parser.parse_args()
    pruned = run(options.out / "pruned", *TRAINING, *PRUNING)
    batches = pruned["history"][pruned["summary"]["final"]["round"]]["batches"]
    longer = ("--rounds", "0", "--batches", str(batches))
    control = run(options.out / "control", *TRAINING, *longer)
    write_networks(options.out / "pruned", small.FOLDER)
    data = load_data(Config(**pruned["summary"]["config"]), cache=None, progress=True)
    content = card(small.FOLDER, data, pruned, control)
    write_text(small.FOLDER / "card.json", json.dumps(content, indent=1) + "\n")
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
