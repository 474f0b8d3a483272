"""A trained network to begin a run with: one that a run wrote, or weights of torchvision's ResNet.

A file of weights doesn't say what it was trained to answer, nor on images standardised how:
torchvision publishes those of ImageNet, so that is taken.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.config import Config
from course_lib.data import Data, same_images
from course_lib.errors import CourseError
from course_lib.resnet import DEPTHS, ResNet, add_projections, from_saved, resnet_config

# What torchvision's weights expect: https://docs.pytorch.org/vision/stable/models.html
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Pretrained:
    """What a file holds: a network and, where known, its classes, how images are standardised and
    which it was trained on.

    `mean`, `std`: per channel, of pixels in [0, 1]. `images`: what
    `same_images` needs of a `Data.fingerprint()`.
    """

    network: ResNet
    classes: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    images: Mapping[str, Any] | None = None


def begin_with(config: Config, data: Data) -> tuple[ResNet | None, Data]:
    """The network of `config.start` for this data, and the data as that network is used to it.

    The network gets a new last layer, drawn from the seed, where its classes aren't the data's, and
    identity projections where `config.projection` wants one on every block. (None, data) without a
    start. Raises CourseError for a file that can't be read or doesn't fit.
    """
    if config.start is None:
        return None, data
    found = read(config.start)
    network, channels = found.network, data.train.images.shape[3]
    if network.conv1.in_channels != channels:
        raise CourseError(
            f"The images of {data.name} have {channels} channels, not the "
            f"{network.conv1.in_channels} of the network in {config.start}: begin with another one."
        )
    notes = data.notes
    answers = found.classes is None or found.classes == data.classes
    if not answers or network.fc.out_features != len(data.classes):
        if config.batches == 0:
            raise CourseError(
                f"The network in {config.start} has other classes than {data.name}, so its last "
                "layer must be trained: give --batches at least 1."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network.fc = nn.Linear(network.fc.in_features, len(data.classes))
        notes += (f"{config.start}: it has other classes, so its last layer begins anew.",)
    same_task = config.data != "generated" and found.classes == data.classes
    if same_task and not same_images(data.fingerprint(), found.images or {}, "val", "test"):
        notes += (
            f"{config.start}: its images were divided otherwise, so it may have learnt some that "
            "now validate and test it: keep --seed and the files, or make train, val and test "
            "folders.",
        )
    if config.projection == "all":
        network = add_projections(network)
    mean, std = found.mean or data.mean, found.std or data.std
    return network, replace(data, mean=mean, std=std, notes=notes)


def read(path: str | Path) -> Pretrained:
    """What a file holds: a network that a run wrote, or a state dict of torchvision's ResNet.

    Raises CourseError for any other file.
    """
    saved = _loaded(path)
    ours = isinstance(saved, Mapping) and "config" in saved
    network = _ours(saved) if ours else _theirs(saved)
    if network is None:
        raise CourseError(
            f"--start {path} is neither a network that a run wrote nor the state_dict() of a "
            "ResNet-18, 34 or 50 with torchvision's names: name another file."
        )
    names = ("classes", "mean", "std")
    if ours:
        known = {name: tuple(saved[name]) for name in names if name in saved}
        images = {"brightness": saved["brightness"]} if "brightness" in saved else None
        return Pretrained(network, **known, images=images)
    if network.conv1.in_channels != 3:
        return Pretrained(network)
    return Pretrained(network, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def _loaded(path: str | Path) -> Any:
    """What torch.load returns, on the CPU; the file can't run anything. Raises CourseError."""
    try:
        return torch.load(Path(path).expanduser(), weights_only=True, map_location="cpu")
    except OSError as error:
        why, fix = error.strerror or str(error), "put it there or name another file"
    except pickle.UnpicklingError:
        why = "it is no file of PyTorch's, or holds more than tensors, numbers and texts"
        fix = "save the network's state_dict() and name that file"
    except Exception as error:  # torch.load raises whatever its file makes it raise
        why, fix = f"{type(error).__name__}: it is damaged", "name another file"
    raise CourseError(f"--start {path} can't be read ({why}): {fix}.")


def _ours(saved: Mapping[str, Any]) -> ResNet | None:
    try:
        return from_saved(dict(saved))
    except Exception:  # it is something else
        return None


def _theirs(saved: Any) -> ResNet | None:
    """The network with torchvision's weights, of whichever depth has exactly these names."""
    if not isinstance(saved, Mapping):
        return None
    weights = {str(name).replace("downsample", "shortcut"): value for name, value in saved.items()}
    stem, last = weights.get("conv1.weight"), weights.get("fc.weight")
    if not (isinstance(stem, Tensor) and stem.dim() == 4 and isinstance(last, Tensor)):
        return None
    for depth in DEPTHS:
        config = resnet_config(
            depth,
            classes=len(last),
            base_width=len(stem),
            channels=stem.shape[1],
            small_images=stem.shape[-1] == 3,
            projection="needed",
        )
        network = ResNet(config)
        try:
            network.load_state_dict(weights)
        except (RuntimeError, AttributeError):  # other names or shapes; values that aren't tensors
            continue
        return network.eval()
    return None
