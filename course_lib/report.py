"""What a finished run bought: test accuracy, speed of every round; summary.json, figures, page."""

from __future__ import annotations

import json
import platform
import re
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy
import PIL
import torch
import torchvision
from matplotlib.figure import Figure
from torch import Tensor

from course_lib import checkpoint, measure, plots
from course_lib.answers import accuracy_by_class, balanced_accuracy, confusion, share_right
from course_lib.checkpoint import State
from course_lib.config import Config
from course_lib.data import Data
from course_lib.iterate import make_loader
from course_lib.page import report_page
from course_lib.resnet import ResNet, ResNetConfig, load_network
from course_lib.training import Loader, pick_precision, place, predict

TIMED_BATCH = 64  # images per timed batch, for every run, so that runs can be compared


def finish(
    state: State, data: Data, out: Path, device: torch.device, *, data_seconds: float = 0.0
) -> dict[str, Any]:
    """Time all rounds in one alternating pass, test the full and the final network once; report.

    Writes history.jsonl (now with images per second), accuracy.png, size.png, throughput.png,
    report.html and summary.json. `data_seconds`: what loading the data took, for the summary's
    account of time. Returns the summary; a run that has it and its page is not measured again.
    """
    path = out / "summary.json"
    earlier = _earlier(path)
    if earlier is not None and (out / "report.html").exists():
        return earlier
    clock = time.perf_counter()
    readings = time_rounds(state, data, device)
    for line in state.history:
        line["images_per_second"] = round(median(readings[str(line["round"])]), 1)
    loader = make_loader(state.config, data, device)
    answers = [answer(out / n, loader, state.config) for n in ("full.pt", "network.pt")]
    summary = _summarise(state, data, answers, readings)
    summary["machine"] = machine(device)
    checkpoint.save(state, out)
    checkpoint.write_lines(out / "history.jsonl", state.history)
    figures = write_figures(state, out)
    page = report_page(summary, state.history, figures, data.test, *answers)
    checkpoint.write_text(out / "report.html", page)
    base = state.history[0]["seconds"]
    seconds = {"data": data_seconds, "base": base, "rounds": state.seconds - base}
    seconds["report"] = time.perf_counter() - clock
    summary["seconds"] = {name: round(spent, 1) for name, spent in seconds.items()}
    # Last of all, since its presence says that all of the above was done.
    checkpoint.write_text(path, json.dumps(summary, indent=2) + "\n")
    return summary


def _earlier(path: Path) -> dict[str, Any] | None:
    """The summary that is there already; None if it isn't, or was damaged by somebody."""
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        describe(summary)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return summary


def _summarise(
    state: State, data: Data, answers: list[Tensor], readings: dict[str, list[float]]
) -> dict[str, Any]:
    """The full network and the last one that passed, side by side."""
    full = state.history[0]
    last = [line for line in state.history if line["passed"]][-1]
    summary = {
        "data": _about(data),
        "full": _results(full, answers[0], data),
        "final": _results(last, answers[1], data),
        "rounds_passed": last["round"],
        "config": state.config.to_dict(),
    }
    slowest, fastest = measure.speed_range(readings, str(last["round"]), "0")
    change = summary["final"]["test_accuracy"] - summary["full"]["test_accuracy"]
    names = ("filters", "parameters", "bytes", "macs", "images_per_second")
    summary["ratios"] = {
        **{name: last[name] / full[name] for name in names},
        "images_per_second_range": [slowest, fastest],
        "test_accuracy_change": change,
    }
    return summary


def _about(data: Data) -> dict[str, Any]:
    parts = {"training": data.train, "validation": data.val, "test": data.test}
    return {
        "name": data.name,
        "classes": list(data.classes),
        "images": {name: len(split.labels) for name, split in parts.items()},
        "image_size": data.test.images.shape[1],
        "notes": list(data.notes),
    }


def time_rounds(state: State, data: Data, device: torch.device) -> dict[str, list[float]]:
    """Images per second of each round's network, by its number: float32, folded, batches of 64.

    Speed depends on the widths, not on the values of the weights, so each network is rebuilt from
    its widths.
    """
    networks: dict[str, torch.nn.Module] = {}
    for line in state.history:
        network = ResNet(ResNetConfig.from_dict(line["network"]))
        networks[str(line["round"])] = place(network, device).eval()
    size, channels = data.train.images.shape[1], data.train.images.shape[3]
    images = torch.zeros(TIMED_BATCH, channels, size, size, device=device)
    return measure.images_per_second(networks, images.contiguous(memory_format=torch.channels_last))


def answer(path: Path, loader: Loader, config: Config) -> Tensor:
    """The class that the network in a file answers to each test image: int64 [N]."""
    network = place(load_network(path), loader.device)
    precision = pick_precision(config.precision, loader.device)
    return predict(network, loader.batches("test"), precision)[0].argmax(1)


def _results(line: dict[str, Any], answers: Tensor, data: Data) -> dict[str, Any]:
    """The figures of one network, with what it reached on the test set."""
    labels = torch.tensor(data.test.labels)
    matrix = confusion(labels, answers, len(data.classes))
    names = ("round", "filters", "parameters", "bytes", "macs", "images_per_second", "val_accuracy")
    return {
        **{name: line[name] for name in names},
        "test_accuracy": share_right(labels, answers),
        "test_balanced_accuracy": balanced_accuracy(matrix),
        "test_accuracy_by_class": dict(zip(data.classes, accuracy_by_class(matrix), strict=True)),
        "test_confusion": matrix.tolist(),  # rows: true class, columns: answer
    }


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": str(device),
        "processor": name,
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
    }


def _processor() -> str:
    """The processor's name and its widest vector instructions, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")  # on Linux, where `platform` knows the architecture only
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    named = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    name = named[1] if named else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def write_figures(state: State, out: Path) -> dict[str, Figure]:
    """The article's figures 6, 7 and 8, by name, each also as a PNG in the folder."""
    figures = {
        "accuracy": plots.accuracy_figure(state.curve, state.history),
        "size": plots.size_figure(state.history),
        "throughput": plots.throughput_figure(state.history),
    }
    for name, figure in figures.items():
        checkpoint.write_whole(out / f"{name}.png", partial(plots.save, figure))
    return figures


def describe(summary: dict[str, Any]) -> str:
    """The summary in a few lines of text."""
    full, final, ratios = summary["full"], summary["final"], summary["ratios"]
    low, high = ratios["images_per_second_range"]
    rows = [
        ("", "full", "pruned", "ratio"),
        ("removable filters", f"{full['filters']:,}", f"{final['filters']:,}", "filters"),
        ("parameters", f"{full['parameters']:,}", f"{final['parameters']:,}", "parameters"),
        ("megabytes", f"{full['bytes'] / 1e6:.2f}", f"{final['bytes'] / 1e6:.2f}", "bytes"),
        ("million MACs", f"{full['macs'] / 1e6:.1f}", f"{final['macs'] / 1e6:.1f}", "macs"),
    ]
    lines = [
        f"{name:<22}{a:>12}{b:>12}  {ratios[c]:.1%}" if c in ratios else f"{name:<22}{a:>12}{b:>12}"
        for name, a, b, c in rows
    ]
    speed = ratios["images_per_second"]
    lines.append(
        f"{'images per second':<22}{full['images_per_second']:>12,.0f}"
        f"{final['images_per_second']:>12,.0f}  x{speed:.2f} ({low:.2f} to {high:.2f})"
    )
    # Balanced accuracy always: whether the classes are of equal size, a reader may not know.
    for name, key in (("test", "test_accuracy"), ("balanced test", "test_balanced_accuracy")):
        if key not in full:
            continue  # the run was finished before balanced accuracy was recorded
        points = 100 * (final[key] - full[key])
        words = f"{full[key]:>12.4f}{final[key]:>12.4f}  {points:+.2f} points"
        lines.append(f"{name + ' accuracy':<22}{words}")
    return "\n".join(lines)
