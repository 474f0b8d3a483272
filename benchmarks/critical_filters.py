"""Critical filters against one validation pass per filter, on a trained ResNet-18 of full width.

    python benchmarks/critical_filters.py [--whole] [--images 128] [--network FILE]

Trains the laptop preset's full network, unless a file with one is named, then counts right answers
per class without each filter in both ways, on the same images, in turn. The naive way runs as fast
as it can: inference mode, batch norms folded, the faster memory layout, whole batches, the filter
taken away by zeroing weights once. Without `--whole` it takes one filter in eight; a pass takes as
long for any filter, so its time is scaled to all. What was interrupted goes on where it was.
Writes data/recorded_runs/critical_filters.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from recording import ROOT, record, run
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from course_lib.data import load
from course_lib.pruning import Group, ablate, find_groups
from course_lib.pruning.surgery import columns_of
from course_lib.report import machine
from course_lib.resnet import load_network
from course_lib.training import Loader

COMMAND = "python benchmarks/critical_filters.py"
OPTIONS = ("--preset", "laptop", "--rounds", "0")
EVERY = 8  # without --whole, the naive way takes one filter in so many
Batch = tuple[Tensor, Tensor]
Counts = dict[int, list[int]]


@torch.inference_mode()
def naive_ablate(folded: nn.Module, group: Group, batches: list[Batch], indices: range) -> Counts:
    """Right answers per class without each of the indices: a pass over the batches for each.

    `folded`: in eval mode; its weights are put back. Zero weights for a channel are the same as
    zeros in it.
    """
    counts: Counts = {}
    for index in indices:
        kept = []
        for reader, columns in group.readers:
            weight: Any = folded.get_submodule(reader).weight
            gone = columns_of(torch.tensor([index]), columns)
            kept.append((weight, gone, weight[:, gone].clone()))
            weight[:, gone] = 0
        right = []
        for images, labels in batches:
            logits = folded(images)
            right.append(torch.bincount(labels[logits.argmax(1) == labels], None, logits.shape[1]))
        counts[index] = torch.stack(right).sum(0).tolist()
        for weight, gone, before in kept:
            weight[:, gone] = before
    return counts


@torch.inference_mode()
def fastest(network: nn.Module, images: Tensor) -> tuple[nn.Module, torch.memory_format]:
    """The folded network in the memory layout in which it is faster on these images."""
    with torch.inference_mode(False):
        folded = fuse(copy.deepcopy(network).eval(), inplace=True).requires_grad_(False)
    found = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        placed, given = (
            copy.deepcopy(folded).to(memory_format=layout),
            images.to(memory_format=layout),
        )
        placed(given)
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            placed(given)
            seconds.append(time.perf_counter() - start)
        found[min(seconds)] = (placed, layout)
    return found[min(found)]


def step(out: Path, name: str, work: Callable[[], Any]) -> dict[str, Any]:
    """What `work` returns and its seconds, from the file of an earlier run if there is one."""
    path = out / f"{name}.json"
    if not path.exists():
        start = time.perf_counter()
        content = work()
        result = {"seconds": time.perf_counter() - start, "content": content}
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".part")
        aside.write_text(json.dumps(result))
        aside.replace(path)
    return json.loads(path.read_text())


def ours(network: nn.Module, groups: dict[str, Group], batch: Batch, what: str) -> Any:
    """Right answers per class without each index, as lists."""
    with tqdm(total=len(batch[1]), desc=what, unit="img") as bar:
        counts = ablate(network, groups, [batch], progress=bar.update)
    return {name: count.tolist() for name, count in counts.items()}


def multiplications(work: Callable[[], Any]) -> int:
    """Multiply-accumulates of convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() // 2


def compare(naive: Counts, mine: list[list[int]]) -> tuple[int, int]:
    """How many counts were compared, and how many differ."""
    pairs = [(a, b) for i, row in naive.items() for a, b in zip(row, mine[int(i)], strict=True)]
    return len(pairs), sum(a != b for a, b in pairs)


def measure_batch(
    number: int, network: nn.Module, groups: dict[str, Group], batch: Batch, every: int, out: Path
) -> dict[str, Any]:
    """Both ways on one batch; which comes first alternates from batch to batch."""
    folded, layout = fastest(network, batch[0])
    batches = [(batch[0].to(memory_format=layout), batch[1])]
    naive, mine = {}, {}

    def run_naive() -> None:
        for name, group in tqdm(groups.items(), f"naive, batch {number}", unit="layer"):
            indices = range(number % every, group.size, every)
            naive[name] = step(
                out,
                f"naive-{every}-{number}-{name}",
                lambda group=group, indices=indices: naive_ablate(folded, group, batches, indices),
            )

    def run_ours() -> None:
        what = f"ours, batch {number}"
        mine.update(step(out, f"ours-{number}", lambda: ours(network, groups, batch, what)))

    order = (run_naive, run_ours) if number % 2 == 0 else (run_ours, run_naive)
    for way in order:
        way()
    checked = [compare(naive[name]["content"], mine["content"][name]) for name in groups]
    scaled = {
        name: naive[name]["seconds"] * group.size / len(naive[name]["content"])
        for name, group in groups.items()
    }
    return {
        "naive_layout": str(layout).removeprefix("torch."),
        "naive_seconds": sum(scaled.values()),
        "naive_measured_seconds": sum(result["seconds"] for result in naive.values()),
        "naive_passes": sum(len(result["content"]) for result in naive.values()),
        "ours_seconds": mine["seconds"],
        "ratio": sum(scaled.values()) / mine["seconds"],
        "counts_compared": sum(compared for compared, _ in checked),
        "counts_different": sum(different for _, different in checked),
        "naive_seconds_by_group": scaled,
    }


def by_group(
    network: nn.Module, groups: dict[str, Group], batch: Batch, first: dict[str, Any], out: Path
) -> list[dict[str, Any]]:
    """Each group by itself, on the first batch, and its multiplications on four images."""
    few = (batch[0][:4], batch[1][:4])
    passes = multiplications(lambda: network.eval()(few[0]))
    rows = []
    for name, group in groups.items():
        one = {name: group}
        mine = step(
            out, f"alone-{name}", lambda one=one, name=name: ours(network, one, batch, name)
        )
        macs = step(
            out,
            f"macs-{name}",
            lambda one=one: multiplications(lambda: ablate(network, one, [few])),
        )
        naive = first["naive_seconds_by_group"][name]
        row = {"name": name, "size": group.size, "naive_seconds": naive}
        row |= {"ours_seconds": mine["seconds"], "ratio": naive / mine["seconds"]}
        rows.append({**row, "mac_ideal": passes * group.size / macs["content"]})
    return rows


def main() -> None:
    """Run what isn't done yet, then record it."""
    parser = argparse.ArgumentParser(description="Critical filters, ours and naively.")
    parser.add_argument("--network", type=Path, help="a full.pt that course_lib wrote")
    parser.add_argument("--whole", action="store_true", help="the naive way on every filter too")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-critical")
    options = parser.parse_args()
    if options.network is None:
        run(options.out / "training", *OPTIONS)
    network = load_network(options.network or options.out / "training" / "full.pt")
    loader = Loader(
        load("generated", image_size=None), torch.device("cpu"), batch_size=options.batch_size
    )
    batches = list(loader.batches("val", options.images))
    groups = find_groups(network, batches[0][0][:1])
    every = 1 if options.whole else EVERY
    parts = options.out / f"{options.images}-{options.batch_size}"
    results = [
        measure_batch(number, network, groups, batch, every, parts)
        for number, batch in enumerate(batches)
    ]
    few = [(batches[0][0][:4], batches[0][1][:4])]
    passes = multiplications(lambda: network.eval()(few[0][0]))
    indices = sum(group.size for group in groups.values())
    macs = step(parts, "macs", lambda: multiplications(lambda: ablate(network, groups, few)))
    total = {
        key: sum(result[key] for result in results)
        for key in ("naive_seconds", "ours_seconds", "counts_compared", "counts_different")
    }
    content = {
        **total,
        "ratio": total["naive_seconds"] / total["ours_seconds"],
        "ratio_range": [min(r["ratio"] for r in results), max(r["ratio"] for r in results)],
        "mac_ideal": passes * indices / macs["content"],
        "whole": options.whole,
        "indices": indices,
        "images": sum(len(labels) for _, labels in batches),
        "batch_size": options.batch_size,
        "batches": [
            {key: value for key, value in result.items() if key != "naive_seconds_by_group"}
            for result in results
        ],
        "groups": by_group(network, groups, batches[0], results[0], parts),
        "machine": machine(torch.device("cpu")),
    }
    given = f" --images {options.images} --batch-size {options.batch_size}"
    command = COMMAND + (" --whole" if options.whole else "") + given
    record("critical_filters", command, content)


if __name__ == "__main__":
    main()
