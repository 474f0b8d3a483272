"""What must hold before a run trains: said at once, not after an hour."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from course_lib.checkpoint import State
from course_lib.config import Config
from course_lib.data import Data, same_images
from course_lib.errors import CourseError
from course_lib.images.layout import PARTS
from course_lib.pruning import find_groups, select


def require_options(config: Config) -> None:
    """Raise CourseError for a cost that the scores can't be divided by, and for a cap that no round
    could keep to.
    """
    if config.cost != "none" and (config.scope == "layer" or config.criterion == "critical"):
        raise CourseError(
            "--cost macs needs --scope network, since within a layer every filter costs the same, "
            "and another criterion than critical, whose scores are ranks."
        )
    if config.scope == "network" and config.rounds and config.fraction > config.cap:
        raise CourseError(
            f"--fraction {config.fraction:g} of all filters can't go while no layer may lose more "
            f"than --cap {config.cap:g} of its own: raise --cap."
        )


def require_removal(state: State, example: torch.Tensor) -> None:
    """Raise CourseError if all rounds together would not remove a single filter.

    `example`: [1, C, H, W], as the network takes it.
    """
    config = state.config
    if config.rounds == 0:
        return
    groups = find_groups(state.network, example)
    # Which filters go depends on the scores; whether any may go doesn't.
    kept = select(
        {name: torch.zeros(group.size) for name, group in groups.items()},
        fraction=config.fraction,
        scope=config.scope,
        round=config.rounds,
        floor=config.floor,
        cap=config.cap,
        multiple=config.multiple,
    )
    if all(len(kept[name]) == group.size for name, group in groups.items()):
        cap = f", --cap {config.cap:g}" if config.scope == "network" else ""
        raise CourseError(
            f"No filter would go in --rounds {config.rounds} with --fraction {config.fraction:g}, "
            f"--floor {config.floor}, --multiple {config.multiple}{cap}: change one of these, "
            "or choose --rounds 0 to only train."
        )


def as_begun(state: State, data: Data) -> Data:
    """The images of a run, standardised as it began with; a new run begins with these.

    Raises CourseError if a resumed run is given other images.
    """
    _require_fit(state, data)
    found = data.fingerprint()
    began = state.images = state.images or found
    for key in ("image_size", "images", "labels"):
        if found[key] != began[key]:
            words = {
                "image_size": f"{found[key]} pixels on a side, not the {began[key]}",
                "images": f"the parts {_counts(found)}, not the {_counts(began)}",
                "labels": "other labels, or the same in another order, than those",
            }
            raise _other_images(data, words[key])
    if not same_images(found, began, *PARTS):
        raise _other_images(data, "other contents or names, and so another division, than those")
    return replace(data, mean=tuple(began["mean"]), std=tuple(began["std"]))


def _counts(found: dict[str, Any]) -> str:
    """How many images each part has."""
    return ", ".join(f"{part} {count:,}" for part, count in found["images"].items())


def _require_fit(state: State, data: Data) -> None:
    classes, channels = list(data.classes), data.train.images.shape[3]
    began = (state.images or state.full or {}).get("classes", classes)
    if began != classes or state.network.fc.out_features != len(classes):
        what = f"the classes {', '.join(classes)}, which aren't those"
    elif state.network.conv1.in_channels != channels:
        what = f"{channels} channels, not the {state.network.conv1.in_channels}"
    else:
        return
    raise _other_images(data, what)


def _other_images(data: Data, what: str) -> CourseError:
    return CourseError(
        f"The images of {data.name} have {what} that the run began with: put the old ones back, "
        "or start again in another --out."
    )
