"""Data sets of torchvision's as plain arrays, from the cache or else from the network."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from course_lib.errors import CourseError
from course_lib.images.cache import locked

# Name → class in torchvision.datasets. A set that is made from (root, train, download) and has
# `data`, `targets` and `classes` needs one line here and nothing else.
TORCHVISION_SETS = {"cifar10": "CIFAR10", "fashion-mnist": "FashionMNIST"}
SECONDS_WITHOUT_AN_ANSWER = 20.0


def torchvision_part(
    name: str, train: bool, root: Path, *, progress: bool = True
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return images uint8 [N, H, W, C], labels int64 [N] and the classes of one part.

    The files are looked for in `root`, as torchvision lays them out, and downloaded into it where
    they are missing. Raises CourseError where that fails or the files are damaged.
    """
    made = _on_disk(name, train, root)
    if made is None:
        made = _downloaded(name, train, root, progress)
    images = np.asarray(made.data)
    labels = np.asarray(made.targets, dtype=np.int64)
    if images.ndim == 3:
        images = images[..., None]  # grey sets have no channel dimension
    return images, labels, tuple(made.classes)


def resized(images: np.ndarray, size: int, chunk: int = 1000) -> np.ndarray:
    """Return square images uint8 [N, H, H, C] at another size, with antialiasing."""
    if images.shape[1] == size:
        return images
    pieces = []
    for start in range(0, len(images), chunk):
        pixels = torch.from_numpy(images[start : start + chunk]).permute(0, 3, 1, 2)
        pixels = torch.nn.functional.interpolate(
            pixels, size=(size, size), mode="bilinear", antialias=True
        )
        pieces.append(pixels.permute(0, 2, 3, 1).numpy())
    return np.concatenate(pieces)


def _on_disk(name: str, train: bool, root: Path) -> Any:
    """The data set, or None where its files aren't there."""
    try:
        return _make(name, train, root, download=False)
    except Exception as error:
        # torchvision says so in words only; damaged files raise anything, AssertionError included.
        if "not found" in str(error):
            return None
        raise CourseError(
            f"The files of {name} in {root} are damaged ({_one_line(error)}): delete them and"
            " start again."
        ) from error


def _downloaded(name: str, train: bool, root: Path, progress: bool) -> Any:
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Standard output is kept for results, and torchvision may print.
        quiet = contextlib.redirect_stdout(sys.stderr)
        with locked(root / f"{name}.lock", progress), _impatient(), quiet:
            return _make(name, train, root, download=True)
    except Exception as error:
        raise CourseError(
            f"{name} is not in {root} and could not be downloaded ({_one_line(error)}): connect"
            " to the network once, or put its files there as torchvision lays them out."
        ) from error


def _make(name: str, train: bool, root: Path, download: bool) -> Any:
    import torchvision  # here, as it takes a second or two and other sources don't need it

    kind = getattr(torchvision.datasets, TORCHVISION_SETS[name])
    return kind(str(root), train=train, download=download)


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Give up on a server that doesn't answer; torchvision would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS_WITHOUT_AN_ANSWER)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "…"
