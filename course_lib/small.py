"""The small trained network that lies in the repository, whole and pruned, and its images.

A quarter-width ResNet-18 that names the colour of generated vehicles, so that a lesson which needs
a trained network has one at once. `data/small/card.json` says what it is and what it reaches.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from course_lib import data
from course_lib.data import Data
from course_lib.errors import CourseError
from course_lib.resnet import ResNet, load_network, saved_form

NAMES = ("full", "pruned")
FOLDER = Path(__file__).resolve().parent.parent / "data" / "small"
COMMAND = "python benchmarks/small_network.py"


def load_small(name: str = "full", folder: Path = FOLDER) -> ResNet:
    """The network `name`, "full" or "pruned": float32, on the CPU, in evaluation mode.

    Raises CourseError for another name, and where its file is missing or damaged.
    """
    if name not in NAMES:
        raise CourseError(f"There is no small network {name!r}: choose one of {', '.join(NAMES)}.")
    path = folder / f"{name}.pt"
    try:
        return load_network(path)  # which widens half precision, as it fills a float32 network
    except CourseError as error:
        raise _not_there(path) from error


def small_card(folder: Path = FOLDER) -> dict[str, Any]:
    """What the two networks are: options, data, sizes, accuracies, the command that made them.

    Raises CourseError where the file is missing or damaged.
    """
    path = folder / "card.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _not_there(path) from error


def small_data(
    *,
    train: int = 1,
    val: int = 1,
    test: int = 1_000,
    folder: Path = FOLDER,
    cache: Path | None = None,
    progress: bool = True,
) -> Data:
    """The generated images the networks know, with the mean and spread they were trained with.

    `train`, `val`, `test`: how many images of each part. Drawing one takes about a millisecond, so
    by default only test images are drawn, and one of each other part. Image i is the same whatever
    the number, and the networks have seen none of `test`.
    Raises CourseError where the card is missing, or the cache can't be written.
    """
    about = small_card(folder)["data"]
    drawn = data.load(
        about["name"],
        image_size=about["image_size"],
        seed=about["seed"],
        cache=cache,
        train=train,
        val=val,
        test=test,
        progress=progress,
    )
    # Those of a few images would be others, and the networks would see shifted colours.
    return replace(drawn, mean=tuple(about["mean"]), std=tuple(about["std"]))


def halved(network: ResNet, **more: Any) -> dict[str, Any]:
    """The network's saved form with every floating-point tensor in half precision (float16).

    Half the bytes; a value moves by at most one part in 2048, or by 3e-8 if it is tiny. Raises
    CourseError if a value is too large for half precision.
    """
    saved = saved_form(network, **more)
    state = saved["state_dict"]
    for name, value in state.items():
        if value.is_floating_point():
            state[name] = value.half()
            if not torch.isfinite(state[name]).all():
                raise CourseError(f"{name} has values above 65,504: half precision can't hold it.")
    return saved


def _not_there(path: Path) -> CourseError:
    return CourseError(
        f"{path} is missing or damaged: in a checkout of the course, `{COMMAND}` makes it again."
    )
