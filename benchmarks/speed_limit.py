"""Measured speed-up against the ratio of multiply-accumulates, and the best way to deploy.

    python benchmarks/speed_limit.py

About 6 minutes on two cores with nothing else running. Writes data/recorded_runs/speed_limit.json.
ResNet-18 of full width for 64-pixel images, and pruned within each layer to about 20.9 % of the
parameters, its widths as they come or rounded up to multiples of 8 and 16. Each way to run them is
timed in alternating passes, full against pruned and against the full network run plainly. What is
done is not done again when the command is given again after an interruption.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import ways
from recording import RECORDED, ROOT, in_parts, record

from course_lib import measure
from course_lib.report import machine
from course_lib.resnet import ResNet

COMMAND = "python benchmarks/speed_limit.py"
CPU = torch.device("cpu")
WAYS: dict[str, ways.Way] = {
    "plain": ways.plain,
    "folded": ways.folded,
    "folded, channels-last": ways.channels_last,
    "torch.compile": ways.compiled,
    "bfloat16": ways.bfloat16,
}
ONNX = "ONNX Runtime"


def by_part(
    found: Mapping[str, ResNet], images: torch.Tensor, passes: int, seconds: float
) -> dict[str, dict[str, dict[str, float]]]:
    """Where the time goes: milliseconds and MACs of the stem, each stage, the last layer, and the
    rest, for each network, folded and channels-last.

    The rest is what the layers by themselves don't account for: pooling, additions, activations,
    and fetching weights that a layer timed again and again keeps in its caches.
    """
    shape = (images.shape[1], images.shape[2], images.shape[3])
    images = images.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        calls = {name: ways.channels_last(network, images) for name, network in found.items()}
        whole = measure.seconds_in_turn(calls, passes=passes, seconds=seconds)
    rows = {}
    for name, network in found.items():
        times = measure.layer_milliseconds(network, images, passes=passes, seconds=seconds / 4)
        macs = measure.layer_macs(network, shape)
        parts: dict[str, dict[str, float]] = {}
        for layer, milliseconds in times.items():
            part = parts.setdefault(layer.split(".")[0], {"ms": 0.0, "macs": 0.0})
            part["ms"] += milliseconds
            part["macs"] += macs[layer]
        rest = 1000 * statistics.median(whole[name]) - sum(part["ms"] for part in parts.values())
        parts["rest"] = {"ms": rest, "macs": 0.0}
        rows[name] = {
            part: {key: round(value, 3) for key, value in of.items()} for part, of in parts.items()
        }
    return rows


def blocked_convolutions(
    found: Mapping[str, ResNet], images: torch.Tensor, folder: Path
) -> dict[str, list[int]]:
    """Of each network's convolutions, how many ONNX Runtime computes in blocks of channels.

    Read from the network as ONNX Runtime rewrites it for this processor.
    """
    import onnx
    import onnxruntime

    counts = {}
    for name, network in found.items():
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(folder / "rewritten.onnx")
        options.log_severity_level = 3  # it warns that such a file serves this processor alone
        path = str(ways.onnx_file(network, images, folder))
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
        convolutions = [node for node in nodes if "Conv" in node.op_type]
        blocked = [node for node in convolutions if node.domain == "com.microsoft.nchwc"]
        counts[name] = [len(blocked), len(convolutions)]
    return counts


def parts(
    found: Mapping[str, ResNet], pixels: int, batches: tuple[int, ...], quick: bool, folder: Path
) -> dict[str, Callable[[], Any]]:
    """What is measured, by name; `quick` reads each time once and skips the compiler."""
    passes, seconds = (1, 0.0) if quick else (7, 0.2)
    onnx = partial(ways.onnx_runtime, folder=folder)
    work: dict[str, Callable[[], Any]] = {}
    for batch in batches:
        images = torch.randn(batch, 3, pixels, pixels, generator=torch.Generator().manual_seed(1))
        for name, way in {**WAYS, ONNX: onnx}.items():
            if quick and way is ways.compiled:
                way = partial(ways.compiled, backend="eager")
            work[f"{name}, batch {batch}"] = partial(
                ways.timed, found, images, way, passes=passes, seconds=seconds
            )
        work[f"by part, batch {batch}"] = partial(by_part, found, images, passes, seconds)
    work["blocked convolutions"] = partial(blocked_convolutions, found, images, folder)
    return work


def measure_all(
    work_folder: Path,
    *,
    base_width: int = 64,
    pixels: int = 64,
    batches: tuple[int, ...] = (64, 1),
    quick: bool = False,
) -> dict[str, Any]:
    """The content of the record."""
    found = ways.networks(ways.resnet18(base_width))
    about = machine(CPU)
    setting = {"base_width": base_width, "pixels": pixels, "quick": quick, "machine": about}
    with tempfile.TemporaryDirectory() as folder:
        work = parts(found, pixels, batches, quick, Path(folder))
        done = in_parts(work_folder / "speed_limit.json", setting, work)
    rows = [
        {"way": way, "batch": batch, **done[f"{way}, batch {batch}"]["result"]}
        for batch in batches
        for way in (*WAYS, ONNX)
    ]
    return {
        "machine": about,
        "bfloat16_in_hardware": ways.cpu_has_bfloat16(),
        "pixels": pixels,
        "networks": ways.sizes(found, (3, pixels, pixels)),
        "rows": rows,
        "by_part": {str(batch): done[f"by part, batch {batch}"]["result"] for batch in batches},
        "blocked_convolutions": done["blocked convolutions"]["result"],
        "seconds": round(sum(part["seconds"] for part in done.values()), 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all of it, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-speed-limit")
    parser.add_argument("--records", type=Path, default=RECORDED, help="where the record goes")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it works")
    options = parser.parse_args(arguments)
    tiny = {"base_width": 8, "pixels": 32, "batches": (2, 1), "quick": True}
    if options.quick and options.records == RECORDED:
        parser.error("--quick needs another folder for the record: add --records")
    content = measure_all(options.out, **(tiny if options.quick else {}))
    record("speed_limit", COMMAND, content, options.records)


if __name__ == "__main__":
    main()
