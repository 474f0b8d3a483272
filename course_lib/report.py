"""What a finished run bought: test accuracy, speed of every round, summary.json, the figures."""

from __future__ import annotations

import json
import platform
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torchvision

from course_lib import checkpoint, measure, plots
from course_lib.checkpoint import State
from course_lib.data import Data
from course_lib.iterate import make_loader
from course_lib.resnet import ResNet, ResNetConfig, load_network
from course_lib.training import accuracy, pick_precision, place

TIMED_BATCH = 64  # images per timed batch, for every run, so that runs can be compared


def finish(
    state: State, data: Data, out: Path, device: torch.device, *, data_seconds: float = 0.0
) -> dict[str, Any]:
    """Time all rounds in one alternating pass, test the full and the final network once; report.

    Writes history.jsonl (now with images per second), summary.json, accuracy.png, size.png and
    throughput.png. `data_seconds`: what loading the data took, for the summary's account of time.
    Returns the summary; a run that has one is not measured again.
    """
    path = out / "summary.json"
    earlier = _earlier(path)
    if earlier is not None:
        return earlier
    clock = time.perf_counter()
    readings = time_rounds(state, data, device)
    for line in state.history:
        line["images_per_second"] = round(median(readings[str(line["round"])]), 1)
    last = [line for line in state.history if line["passed"]][-1]
    summary = {
        "data": {"name": data.name, "classes": list(data.classes), "notes": list(data.notes)},
        "full": _results(state.history[0], out / "full.pt", state, data, device),
        "final": _results(last, out / "network.pt", state, data, device),
        "rounds_passed": last["round"],
        "config": state.config.to_dict(),
        "machine": machine(device),
    }
    slowest, fastest = measure.speed_range(readings, str(last["round"]), "0")
    summary["ratios"] = {
        **{
            name: last[name] / state.history[0][name]
            for name in ("filters", "parameters", "bytes", "macs", "images_per_second")
        },
        "images_per_second_range": [slowest, fastest],
        "test_accuracy_change": summary["final"]["test_accuracy"]
        - summary["full"]["test_accuracy"],
    }
    checkpoint.save(state, out)
    checkpoint.write_lines(out / "history.jsonl", state.history)
    write_figures(state, out)
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


def _results(
    line: dict[str, Any], path: Path, state: State, data: Data, device: torch.device
) -> dict[str, Any]:
    """The figures of one network, with the accuracy of the file that was saved on the test set."""
    network = place(load_network(path), device)
    loader = make_loader(state.config, data, device)
    tested = accuracy(
        network, loader.batches("test"), pick_precision(state.config.precision, device)
    )
    names = ("round", "filters", "parameters", "bytes", "macs", "images_per_second", "val_accuracy")
    return {**{name: line[name] for name in names}, "test_accuracy": tested}


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "device": str(device),
        "processor": name or platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


def write_figures(state: State, out: Path) -> None:
    """The article's figures 6, 7 and 8."""
    figures = {
        "accuracy.png": plots.accuracy_figure(state.curve, state.history),
        "size.png": plots.size_figure(state.history),
        "throughput.png": plots.throughput_figure(state.history),
    }
    for name, figure in figures.items():
        checkpoint.write_whole(out / name, partial(plots.save, figure))


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
        f"{name:<20}{a:>12}{b:>12}  {ratios[c]:.1%}" if c in ratios else f"{name:<20}{a:>12}{b:>12}"
        for name, a, b, c in rows
    ]
    speed = ratios["images_per_second"]
    return "\n".join(
        [
            *lines,
            f"{'images per second':<20}{full['images_per_second']:>12,.0f}"
            f"{final['images_per_second']:>12,.0f}  x{speed:.2f} ({low:.2f} to {high:.2f})",
            f"{'test accuracy':<20}{full['test_accuracy']:>12.4f}{final['test_accuracy']:>12.4f}"
            f"  {100 * ratios['test_accuracy_change']:+.2f} points",
        ]
    )
