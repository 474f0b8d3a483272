"""Everything that is worth measuring on a machine with an NVIDIA GPU, in one command.

    python benchmarks/gpu.py                      all stages; give it again until it says it is done
    python benchmarks/gpu.py --stage speed        one of: paper, speed, ceiling, tests
    python benchmarks/gpu.py --device cpu --tiny --work FOLDER     walks through all of it anywhere

A call ends after about 8 minutes (`--minutes`), with status 3 if something is left, and the next
one goes on from what it wrote. A stage that is done writes data/recorded_runs/gpu_STAGE.json.
"""

from __future__ import annotations

import argparse
import copy
import os
import signal
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import ways
from recording import RECORDED, ROOT, in_parts, record, written
from torch import Tensor, nn

from course_lib import measure
from course_lib.config import PRESETS
from course_lib.report import machine
from course_lib.resnet import ResNet
from course_lib.training import Augmentation, Loader, make_optimizer, make_schedule, place, train

COMMAND = "python benchmarks/gpu.py"
NOT_DONE = 3
ENDLESS = 1_000_000  # steps of a training that is only timed


@dataclass(frozen=True)
class Setting:
    """Where it runs, how much of it, and where to."""

    device: torch.device
    tiny: bool
    work: Path
    shorten: int

    def pick(self, whole: Any, tiny: Any) -> Any:
        """One of two sizes."""
        return tiny if self.tiny else whole

    def parts(
        self, name: str, work: dict[str, Callable[[], Any]], minutes: float
    ) -> dict[str, Any] | None:
        """What the parts of a stage found; None while some are missing."""
        setting = {"tiny": self.tiny, "machine": machine(self.device)}
        done = in_parts(self.work / f"{name}.json", setting, work, minutes)
        if len(done) < len(work):
            return None
        found = {part: of["result"] for part, of in done.items()}
        return {**found, "seconds": round(sum(of["seconds"] for of in done.values()), 1)}


# ---- the article's protocol


def paper_options(setting: Setting) -> list[str]:
    """The paper preset in bfloat16, with every count of batches divided by `shorten`."""
    if setting.tiny:
        return [
            *("--preset", "smoke", "--image-size", "16", "--base-width", "4", "--batch-size", "16"),
            *("--train-images", "64", "--val-images", "32", "--test-images", "32"),
            *("--batches", "4", "--rounds", "1", "--finetune-batches", "2"),
        ]
    options = ["--preset", "paper", "--precision", "bfloat16"]
    for name in ("batches", "finetune_batches", "curve_every", "checkpoint_every"):
        count = max(1, getattr(PRESETS["paper"], name) // setting.shorten)
        options += [f"--{name.replace('_', '-')}", str(count)]
    return options


def paper(setting: Setting, minutes: float) -> dict[str, Any] | None:
    """A run of the command line, stopped by a signal when time is up, and resumed."""
    out = setting.work / "paper"
    command = [sys.executable, "-m", "course_lib", "run", "--out", str(out.resolve())]
    command += ["--device", setting.device.type, *paper_options(setting)]
    if setting.tiny:
        command += ["--quiet", "--cache", str((setting.work / "cache").resolve())]
    if (out / "config.json").exists():
        command.append("--resume")
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        status = process.wait(max(1.0, 60 * minutes))
    except subprocess.TimeoutExpired:
        # The batch is finished and all is saved; on Windows only the last checkpoint is kept.
        process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
        process.wait()
        return None
    if status:
        raise SystemExit(status)  # it has said why
    found = written(out)
    seconds = round(sum(found["summary"]["seconds"].values()), 1)
    return {"shortened": setting.shorten, **found, "seconds": seconds}


# ---- images per second, full against pruned


def speed(setting: Setting, minutes: float) -> dict[str, Any] | None:
    """Each batch size, precision and way: every network in alternating passes."""
    pixels, width = setting.pick((64, 64), (32, 4))
    found = ways.networks(ways.resnet18(width))
    backend = setting.pick("inductor", "eager")
    kinds: dict[str, ways.Way] = {
        "eager": ways.channels_last,
        "torch.compile": partial(ways.compiled, backend=backend),
        "CUDA graph": ways.cuda_graph,
    }
    passes, seconds = setting.pick((5, 0.1), (1, 0.0))
    work: dict[str, Callable[[], Any]] = {}
    batches = setting.pick((1, 32, 256, 1024), (2,))
    for batch in batches:
        images = torch.randn(batch, 3, pixels, pixels, generator=torch.Generator().manual_seed(1))
        for name, way in kinds.items():
            for precision in ("float32", "bfloat16"):
                taken = way if precision == "float32" else partial(ways.bfloat16, way=way)
                work[f"{name}, {precision}, batch {batch}"] = partial(
                    timed_there, setting.device, found, images, taken, passes, seconds
                )
    done = setting.parts("speed", work, minutes)
    if done is None:
        return None
    rows = [
        {"way": name, "precision": precision, "batch": batch}
        | done[f"{name}, {precision}, batch {batch}"]
        for batch in batches
        for name in kinds
        for precision in ("float32", "bfloat16")
    ]
    networks = ways.sizes(found, (3, pixels, pixels))
    return {"pixels": pixels, "networks": networks, "rows": rows, "seconds": done["seconds"]}


def timed_there(
    device: torch.device,
    found: dict[str, ResNet],
    images: Tensor,
    way: ways.Way,
    passes: int,
    seconds: float,
) -> dict[str, Any]:
    """`ways.timed` with the images on the device."""
    return ways.timed(found, images.to(device), way, passes=passes, seconds=seconds)


# ---- training against a bare loop and against the device


def ceiling(setting: Setting, minutes: float) -> dict[str, Any] | None:
    """Training images per second for 32-pixel images, and what a matrix product of this device's
    speed would allow.
    """
    width, size = setting.pick((64, 8192), (4, 64))
    config = ways.resnet18(width, small_images=True)
    data = ways.noise(*setting.pick((50_000, 32, 10), (64, 32, 10)))
    work: dict[str, Callable[[], Any]] = {"matrix": partial(product_flops, setting, size)}
    batches = setting.pick((64, 512), (8,))
    for batch in batches:
        arms = partial(training_rates, setting, ResNet(config), data, batch)
        work[f"batch {batch}"] = arms
    done = setting.parts("ceiling", work, minutes)
    if done is None:
        return None
    macs = measure.count_macs(ResNet(config), (3, 32, 32))
    return {
        "product_size": size,
        "product_flops": done["matrix"],
        "macs": macs,
        # Backward is two products for each one of forward; a multiply-accumulate is two operations.
        "ceiling": round(done["matrix"] / (3 * 2 * macs), 1),
        "rates": {str(batch): done[f"batch {batch}"] for batch in batches},
        "seconds": done["seconds"],
    }


def product_flops(setting: Setting, size: int) -> float:
    """Floating-point operations per second of a square bfloat16 matrix product."""
    one, other = (torch.randn(size, size, device=setting.device).bfloat16() for _ in range(2))
    readings = measure.seconds_in_turn(
        {"product": partial(torch.mm, one, other)}, seconds=setting.pick(0.2, 0.0)
    )
    return float(f"{2 * size**3 / statistics.median(readings['product']):.4g}")


def training_rates(
    setting: Setting, network: ResNet, data: Any, batch: int
) -> dict[str, list[float]]:
    """Images per second of a bare loop and of ours: median, lowest and highest of the passes."""
    steps = {
        "bare loop": bare_steps(setting, network, data, batch),
        "ours": our_steps(setting, network, data, batch, None),
        "ours, augmented": our_steps(setting, network, data, batch, Augmentation()),
    }
    passes, seconds = setting.pick((7, 0.5), (1, 0.0))
    calls = {name: partial(next, losses) for name, losses in steps.items()}
    readings = measure.seconds_in_turn(calls, passes=passes, seconds=seconds)
    rates = {name: [batch / one for one in mine] for name, mine in readings.items()}
    return {
        name: [round(x, 1) for x in (statistics.median(mine), min(mine), max(mine))]
        for name, mine in rates.items()
    }


def our_steps(
    setting: Setting,
    network: ResNet,
    data: Any,
    batch: int,
    augmentation: Augmentation | None,
) -> Iterator[Tensor]:
    """Training as a run does it, bfloat16, a loss for each step."""
    mine = trainable(setting, network)
    loader = Loader(data, setting.device, batch_size=batch, augmentation=augmentation)
    optimizer = make_optimizer(mine, 0.01, 0.9, 5e-4)
    schedule = make_schedule(optimizer, 0.01, ENDLESS, 0.2)
    batches = loader.training_batches("timed", 0, ENDLESS)
    return train(mine, optimizer, schedule, batches, precision=torch.bfloat16)


def bare_steps(setting: Setting, network: ResNet, data: Any, batch: int) -> Iterator[Tensor]:
    """The shortest loop there is over tensors that lie on the device, standardised beforehand."""
    mine, device = trainable(setting, network).train(), setting.device
    pixels = torch.from_numpy(data.train.images).to(device).permute(0, 3, 1, 2)
    images = ((pixels / 255 - 0.5) / 0.25).contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(data.train.labels).to(device)
    optimizer = make_optimizer(mine, 0.01, 0.9, 5e-4)
    while True:
        for chosen in torch.randperm(len(labels), device=device).split(batch):
            with torch.autocast(device.type, torch.bfloat16):
                loss = F.cross_entropy(mine(images[chosen]), labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            yield loss.detach()


def trainable(setting: Setting, network: ResNet) -> nn.Module:
    """A fresh copy on the device."""
    return place(copy.deepcopy(network), setting.device)


# ---- the tests that need a GPU


def tests(setting: Setting, minutes: float) -> dict[str, Any] | None:
    """CPU and GPU agree: how many tests passed, which failed."""
    report = (setting.work / "tests.xml").resolve()
    report.unlink(missing_ok=True)
    # Without the project's own options, which need packages that a bare machine lacks.
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-m", "gpu", "-q"]
    done = subprocess.run([*command, f"--junitxml={report}", "tests/test_gpu.py"], cwd=ROOT)
    if not report.exists():
        print("The tests didn't start: they need pytest and hypothesis.", file=sys.stderr)
        raise SystemExit(done.returncode)
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    failed = [one.get("name") for one in cases if {"failure", "error"} & {e.tag for e in one}]
    skipped = sum(any(e.tag == "skipped" for e in one) for one in cases)
    return {
        "passed": len(cases) - len(failed) - skipped,
        "failed": failed,
        "skipped": skipped,
        "seconds": round(sum(float(one.get("time", 0)) for one in cases), 1),
    }


STAGES = {"tests": tests, "speed": speed, "ceiling": ceiling, "paper": paper}


def about(setting: Setting) -> dict[str, Any]:
    """The machine, and which kind of float32 its products are: TF32 rounds what it multiplies."""
    cuda = setting.device.type == "cuda"
    return {
        **machine(setting.device),
        "cuda": torch.version.cuda if cuda else None,
        "tf32_convolutions": cuda and torch.backends.cudnn.allow_tf32,
        "tf32_matrix_products": cuda and torch.backends.cuda.matmul.allow_tf32,
    }


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", choices=("all", *STAGES), default="all")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="seconds, to see that it works")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "bench-gpu")
    parser.add_argument("--records", type=Path, help="where the records go")
    parser.add_argument("--minutes", type=float, default=8.0, help="when a call ends (default: 8)")
    parser.add_argument("--shorten", type=int, default=1, help="divides the paper preset's batches")
    parser.add_argument("--commit", help="where git doesn't know it")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what isn't done yet; record every stage that is."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA device here: run this where there is one.")
    if options.device == "cpu" and not options.tiny:
        parser.error("--device cpu only shows that the script works: add --tiny.")
    default = options.work / "records" if options.tiny else RECORDED
    records = options.records or default
    if options.tiny and records.resolve() == RECORDED.resolve():
        parser.error("--tiny measures nothing worth recording: choose other --records.")
    if options.shorten < 1:
        parser.error("--shorten must be 1 or more.")
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    setting = Setting(torch.device(options.device), options.tiny, work, options.shorten)
    ends = time.monotonic() + 60 * options.minutes
    for name in STAGES if options.stage == "all" else (options.stage,):
        left = (ends - time.monotonic()) / 60
        content = STAGES[name](setting, left) if left > 0 else None
        if content is None:
            print(f"{name} isn't finished: give the same command again to go on.")
            return NOT_DONE
        what = {"machine": about(setting), "tiny": setting.tiny, **content}
        record(f"gpu_{name}", f"{COMMAND} --stage {name}", what, records, options.commit)
        print(f"{name} is done: {records / f'gpu_{name}.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
