"""One process against two under torchrun, and what a surgery costs when training is distributed.

    python benchmarks/scaling.py

About 3 minutes on two cores with nothing else running. Writes data/recorded_runs/scaling.json.
Every process has one thread, and the batch of all of them together is the same, so twice the images
per second would be perfect. The images are noise: time doesn't depend on them. Launches of one and
of two processes alternate; what is done is not done again when the command is given again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import ways
from recording import RECORDED, ROOT, in_parts, record
from torch import nn

from course_lib import checkpoint, distributed, measure
from course_lib.checkpoint import State
from course_lib.config import make_config
from course_lib.iterate import make_loader
from course_lib.pruning import carry_optimizer, find_groups, l1, prune, select
from course_lib.report import machine
from course_lib.training import Loader, place, train

COMMAND = "python benchmarks/scaling.py"
CPU = torch.device("cpu")
FRACTION = 0.05  # what a round removes in the measured surgery


def step_seconds(
    state: State, loader: Loader, steps: int, wrapped: nn.Module | None = None
) -> list[float]:
    """Seconds of each training step, the first of a phase included; all processes begin together.

    `wrapped`: the network as its gradients are exchanged; without it, every process trains alone.
    """
    batches = loader.training_batches("scaling", 0, steps)
    losses = train(wrapped or state.network, state.optimizer, state.schedule, batches)
    if distributed.world() > 1:
        dist.barrier()
    seconds, clock = [], time.perf_counter()
    for loss in losses:
        loss.item()
        now = time.perf_counter()
        seconds.append(now - clock)
        clock = now
    return seconds


@contextmanager
def clocked(found: dict[str, Any], name: str) -> Iterator[None]:
    """The seconds spent inside, kept under this name."""
    clock = time.perf_counter()
    yield
    found[name] = time.perf_counter() - clock


def cut(state: State) -> State:
    """One round's surgery within each layer by L1 norm, as the loop does it; momentum carried."""
    groups = find_groups(state.network, torch.zeros(1, 3, 48, 48))
    keep = select(l1(state.network, groups), fraction=FRACTION)
    narrow = place(prune(state.network, groups, keep), CPU)
    optimizer = carry_optimizer(state.optimizer, state.network, narrow, groups, keep)
    changed = replace(state, network=narrow, optimizer=optimizer)
    checkpoint.start_cycle(changed)
    return changed


def surgery_seconds(state: State, loader: Loader, steps: int) -> dict[str, float]:
    """What a surgery costs when every process needs its result, part by part."""
    found: dict[str, Any] = {}

    def timed_cut() -> State:
        with clocked(found, "surgery"):
            return cut(state)

    with clocked(found, "surgery and sending"):
        narrow = checkpoint.from_first(timed_cut, state.config, CPU)
    with clocked(found, "wrapping"):
        wrapped = distributed.wrap(narrow.network)
    seconds = step_seconds(narrow, loader, steps, wrapped)
    found |= {"first step": seconds[0], "later step": statistics.median(seconds[2:])}
    return found


def worker(out: Path, base_width: int, pixels: int, batch: int, steps: int) -> None:
    """What one process does; the first one writes what it measured."""
    distributed.join(CPU)
    config = make_config("laptop", base_width=base_width, batch_size=batch, image_size=pixels)
    loader = make_loader(config, ways.noise(4 * batch, pixels), CPU)
    full = config.network(8, 3, pixels)
    found: dict[str, Any] = {}
    for name, widths in {"full": full, "pruned": ways.pruned_widths(full, 1)}.items():
        state = checkpoint.new_state(config, widths, CPU)
        measured = {"together": step_seconds(state, loader, steps, distributed.wrap(state.network))}
        if distributed.world() > 1:
            measured["alone"] = step_seconds(state, loader, steps)
        found[name] = {way: statistics.median(mine[2:]) for way, mine in measured.items()}
        found[name] |= sent(state, pixels)
        if name == "full":
            found["surgery"] = surgery_seconds(state, loader, steps)
    if distributed.rank() == 0:
        out.write_text(json.dumps(found), encoding="utf-8")
    distributed.leave()


def sent(state: State, pixels: int) -> dict[str, int]:
    """Bytes that a training step exchanges, and a phase at its end, by the tensors themselves."""
    return {
        "parameters": measure.count_parameters(state.network),
        "gradient_bytes": sum(weight.nbytes for weight in state.network.parameters()),
        "statistics_bytes": sum(buffer.nbytes for buffer in state.network.buffers()),
        "macs": measure.count_macs(state.network, (3, pixels, pixels)),
    }


def launch(processes: int, settings: dict[str, int]) -> dict[str, Any]:
    """What the first of so many processes measured, each with one thread."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        words = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc-per-node={processes}", __file__, f"--worker={out}", *words]
        threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, **threads, "PYTHONPATH": path}
        subprocess.run(command, check=True, env=environment)
        return json.loads(out.read_text())


def measure_all(work_folder: Path, settings: dict[str, int], repeats: int) -> dict[str, Any]:
    """The content of the record: a row a launch."""
    about = {**machine(CPU), "threads": 1}
    work = {
        f"{processes} processes, launch {repeat}": partial(launch, processes, settings)
        for repeat in range(repeats)
        for processes in (1, 2)
    }
    done = in_parts(work_folder / "scaling.json", {**settings, "machine": about}, work)
    rows = [
        {"processes": int(name.split()[0]), "launch": int(name.split()[-1]), **part["result"]}
        for name, part in done.items()
    ]
    seconds = round(sum(part["seconds"] for part in done.values()), 1)
    return {"machine": about, "settings": settings, "rows": rows, "seconds": seconds}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all of it and write the record; or be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-scaling")
    parser.add_argument("--records", type=Path, default=RECORDED, help="where the record goes")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it works")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    settings = {"base_width": 64, "pixels": 48, "batch": 64, "steps": 10}
    for name in settings:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        worker(options.worker, *(getattr(options, name) for name in settings))
        return
    if options.quick:
        settings = {"base_width": 4, "pixels": 32, "batch": 8, "steps": 4}
        if options.records == RECORDED:
            parser.error("--quick needs another folder for the record: add --records")
    content = measure_all(options.out, settings, repeats=1 if options.quick else 3)
    record("scaling", COMMAND, content, options.records)


if __name__ == "__main__":
    main()
