"""What is handed in to the challenge: a file of a network, written here and read with suspicion.

It comes from somebody else, so nothing in it is run, and its size is looked at before memory is
given to it.
"""

from __future__ import annotations

import hashlib
import io
import math
import warnings
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from course_lib.checkpoint import write_whole
from course_lib.data import GENERATED_SIZE, Data
from course_lib.errors import CourseError
from course_lib.measure import count_macs, count_parameters
from course_lib.resnet import ResNet, ResNetConfig, saved_form
from course_lib.vehicles import CLASSES

LARGEST_FILE = 2**27  # bytes: a ResNet-50 in float32, and some room
MOST_WIDTH, MOST_BLOCKS, MOST_PARAMETERS, MOST_MACS = 2_048, 64, 50_000_000, 2_000_000_000
IMAGE_SHAPE = (3, GENERATED_SIZE, GENERATED_SIZE)


@dataclass(frozen=True)
class Submission:
    """A network as it was handed in, how its images are standardised, and its file's SHA-256."""

    network: ResNet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    file: str


def save_submission(network: ResNet, data: Data, path: str | Path) -> None:
    """Write a network to hand in, trained on images standardised as `data` is.

    Raises CourseError if the file can't be written.
    """
    write_whole(Path(path), partial(torch.save, saved_form(network, **data.about())))


def read_submission(path: Path) -> Submission:
    """The network in a file. Raises CourseError, naming the file, for whatever else is in it."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise CourseError(f"{path} is larger than {LARGEST_FILE >> 20} MiB: hand in a network.")
        content = path.read_bytes()
    except OSError as error:
        raise CourseError(f"{path} can't be read ({error.strerror}): name another file.") from error
    try:
        saved = _unpacked(content)
        config = ResNetConfig.from_dict(saved["config"])
        _require_size(config)
        network = ResNet(config)
        network.load_state_dict(saved["state_dict"])
        mean, std = _three(saved["mean"]), _three(saved["std"])
        ours = [*saved["classes"], saved["image_size"]] == [*CLASSES, GENERATED_SIZE]
    except CourseError as error:
        raise CourseError(f"{path} can't be scored: {error}") from error
    except Exception as error:  # torch.load raises whatever its file makes it raise
        raise CourseError(
            f"{path} isn't whole or isn't a network for the challenge: "
            "hand in a run's network.pt, or what save_submission wrote."
        ) from error
    if not ours:
        raise CourseError(
            f"{path} was trained on other images: train on generated ones of {GENERATED_SIZE} "
            "pixels."
        )
    return Submission(network.eval(), mean, std, hashlib.sha256(content).hexdigest())


def _unpacked(content: bytes) -> dict[str, Any]:
    """What a file of torch.save holds: tensors, numbers and texts only."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(part.file_size for part in archive.infolist()) > LARGEST_FILE:
            raise CourseError("it is compressed, and far larger than it seems.")
    with warnings.catch_warnings(action="ignore"):
        return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")


def _require_size(config: ResNetConfig) -> None:
    """Raise CourseError for a network of another kind or too large, before it takes memory."""
    blocks = [block for stage in config.stages for block in stage]
    widths = [config.stem, *(width for block in blocks for width in block.widths)]
    in_bounds = (
        len(config.stages) <= MOST_BLOCKS
        and len(blocks) <= MOST_BLOCKS
        and all(type(width) is int and 1 <= width <= MOST_WIDTH for width in widths)
        and all(block.stride in (1, 2) for block in blocks)
        and (config.channels, config.classes) == (IMAGE_SHAPE[0], len(CLASSES))
    )
    if in_bounds:
        with torch.device("meta"):  # shapes only
            network = ResNet(config)
        in_bounds = (
            count_parameters(network) <= MOST_PARAMETERS
            and count_macs(network, IMAGE_SHAPE) <= MOST_MACS
        )
    if not in_bounds:
        raise CourseError(
            f"a network has 3 channels, {len(CLASSES)} classes, layers of 1 to {MOST_WIDTH:,} "
            f"filters, at most {MOST_BLOCKS} blocks, {MOST_PARAMETERS // 10**6} million "
            f"parameters and {MOST_MACS // 10**9} billion multiply-accumulates."
        )


def _three(values: Any) -> tuple[float, ...]:
    """A number for each channel. Raises ValueError or TypeError for anything else."""
    red, green, blue = (float(value) for value in values)
    if not all(map(math.isfinite, (red, green, blue))):
        raise ValueError("not finite")
    return red, green, blue
