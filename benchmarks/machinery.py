"""The pruning step itself, ours against Torch-Pruning's, and how it grows with the network.

    python benchmarks/machinery.py

A step finds the groups, scores every filter by its L2 norm, selects half of each group and cuts.
Torch-Pruning's is that of its readme (`BasePruner`, norms of all layers of a group, an example of
224 pixels), and, so that it is as fast as it can be, also with an example of 32 pixels and with the
norm of a group's first layer alone. The networks are torchvision's ResNet-18, 34 and 50; then
ResNets of growing depth and width. Weights are random: nothing here depends on them. Theirs changes
the network it is given, so each step gets a copy, which isn't timed; ours returns a new network and
is timed with that. Needs `pip install -r benchmarks/requirements.txt`; about three minutes on one
core. What was interrupted goes on when the command is given again; to measure anew remove
runs/bench-machinery. Writes data/recorded_runs/machinery.json.
"""

from __future__ import annotations

import argparse
import copy
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from math import log
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import torch
import torchvision
from peer import classifiers, tp
from recording import RECORDED, ROOT, in_parts, record, source
from torch import Tensor, nn

from course_lib.measure import count_parameters
from course_lib.pruning import find_groups, l2, prune, select
from course_lib.report import machine
from course_lib.resnet import ResNet, resnet_config

COMMAND = "OMP_NUM_THREADS=1 python benchmarks/machinery.py"
FRACTION = 0.5
PASSES = 9
NETWORKS = ("resnet18", "resnet34", "resnet50")
BLOCKS, WIDTHS = (2, 4, 8, 16, 32), (16, 32, 64, 128)  # per stage; of the stem
SMALL, LARGE = 32, 224  # pixels of the example
Step = Callable[[nn.Module, Tensor], nn.Module]


def our_step(network: nn.Module, example: Tensor) -> nn.Module:
    """Groups, scores, selection, surgery: a new network."""
    groups = find_groups(network, example)
    return prune(network, groups, select(l2(network, groups), fraction=FRACTION))


def their_step(network: nn.Module, example: Tensor, **importance: Any) -> nn.Module:
    """The same by Torch-Pruning's readme; the network itself is changed."""
    pruner = tp.pruner.BasePruner(
        network,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2, **importance),
        pruning_ratio=FRACTION,
        ignored_layers=classifiers(network),
    )
    pruner.step()
    return network


FIRST = partial(their_step, group_reduction="first", normalizer=None, target_types=[nn.Conv2d])
WAYS: dict[str, tuple[Step, int]] = {
    "ours": (our_step, LARGE),
    "as its readme": (their_step, LARGE),
    "small example": (their_step, SMALL),
    "small example, first layer's norm": (FIRST, SMALL),
}
GROWTH_WAYS = {name: (WAYS[name][0], SMALL) for name in ("ours", "small example")}


def timed(step: Step, network: nn.Module, pixels: int) -> tuple[float, nn.Module]:
    """The seconds of one step on a copy, and the pruned network."""
    mine, example = copy.deepcopy(network), torch.randn(1, 3, pixels, pixels)
    gc.collect()  # not the other side's leavings in our time
    start = time.perf_counter()
    narrow = step(mine, example)
    return time.perf_counter() - start, narrow


def compare(make: Callable[[], nn.Module], ways: dict[str, tuple[Step, int]], passes: int) -> Any:
    """Every way in turn, there and back again, `passes` times after a first one that warms up."""
    network = make()
    readings: dict[str, list[float]] = {name: [] for name in ways}
    widths: dict[str, list[int]] = {}
    left = {}
    for number in range(passes + 1):
        for name in list(ways) if number % 2 == 0 else reversed(ways):
            seconds, narrow = timed(ways[name][0], network, ways[name][1])
            if number:
                readings[name].append(seconds)
            widths[name] = [w.shape[0] for w in narrow.parameters() if w.dim() == 4]
            left[name] = count_parameters(narrow)
    ratios = {
        name: [theirs / ours for theirs, ours in zip(mine, readings["ours"], strict=True)]
        for name, mine in readings.items()
        if name != "ours"
    }
    return {
        "convolutions": len(widths["ours"]),
        "parameters": count_parameters(network),
        "parameters_left": left,
        "same_widths": all(found == widths["ours"] for found in widths.values()),
        "seconds": {name: median(mine) for name, mine in readings.items()},
        "times_ours": {
            name: {"median": median(mine), "range": [min(mine), max(mine)]}
            for name, mine in ratios.items()
        },
    }


def resnet(blocks: int, width: int) -> nn.Module:
    """A ResNet of basic blocks with `blocks` of them in each stage; 2 make ResNet-18."""
    config = resnet_config(18, 10, base_width=width, small_images=True, projection="needed")
    stages = tuple((first, *[other] * (blocks - 1)) for first, other in config.stages)
    return ResNet(replace(config, stages=stages))


def slope(rows: Sequence[dict[str, Any]], size: str, way: str) -> float:
    """The exponent e of seconds ≈ size^e, by least squares on logarithms: 1 is linear."""
    points = [(log(row[size]), log(row["seconds"][way])) for row in rows]
    return linear_regression(*zip(*points, strict=True)).slope


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what isn't measured yet, then record it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passes", type=int, default=PASSES)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--blocks", type=int, nargs="+", default=BLOCKS)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-machinery")
    parser.add_argument("--record", type=Path, default=RECORDED, help="folder of the JSON file")
    options = parser.parse_args(arguments)
    names = {
        name: (partial(getattr(torchvision.models, name), weights=None), WAYS)
        for name in options.networks
    }
    depths = {f"{n} blocks a stage": (partial(resnet, n, 16), GROWTH_WAYS) for n in options.blocks}
    widths = {f"width {w}": (partial(resnet, 2, w), GROWTH_WAYS) for w in options.widths}
    parts = {
        name: partial(compare, make, ways, options.passes)
        for name, (make, ways) in {**names, **depths, **widths}.items()
    }
    setting = {"passes": options.passes, "fraction": FRACTION, "commit": source("")["commit"]}
    done = in_parts(options.out / "parts.json", setting, parts)
    found = {
        kind: [{"name": name, **done[name]["result"]} for name in members]
        for kind, members in {"networks": names, "depth": depths, "width": widths}.items()
    }
    slopes = {
        kind: {way: slope(found[kind], size, way) for way in GROWTH_WAYS}
        for kind, size in {"depth": "convolutions", "width": "parameters"}.items()
    }
    content = {
        "passes": options.passes,
        "fraction": FRACTION,
        "torch_pruning": version("torch-pruning"),
        **found,
        "slopes": slopes,
        "machine": machine(torch.device("cpu")),
    }
    record("machinery", COMMAND, content, options.record)


if __name__ == "__main__":
    main()
