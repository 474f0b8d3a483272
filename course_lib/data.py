"""Images and labels for training, validation and testing, from any of three sources.

`load` returns generated street scenes, a data set of torchvision's by name, or the user's own
folder of images, all in one form.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from course_lib import vehicles
from course_lib.errors import CourseError
from course_lib.images.cache import RowWriter, built_once, default_cache
from course_lib.images.folder import default_image_size, load_folder, stratified_order
from course_lib.images.layout import PARTS
from course_lib.images.scan import scan_folder
from course_lib.images.torchvision_sets import TORCHVISION_SETS, resized, torchvision_part

GENERATED_COUNTS = {"train": 12_000, "val": 2_000, "test": 6_000}
GENERATED_SIZE = 48
# Training on 96-pixel images takes 2.25 times as long as on 64-pixel ones (96² / 64²), and on a
# processor without a GPU that is what limits how long one can train.
LARGEST_DEFAULT_SIZE = 64
SMALLEST_SIZE, LARGEST_SIZE = 16, 1024


@dataclass(frozen=True)
class Split:
    """One part of a data set; in any prefix the classes have about the same proportions."""

    images: np.ndarray  # uint8 [N, H, W, C]; may be a read-only memory map
    labels: np.ndarray  # int64 [N]


@dataclass(frozen=True)
class Data:
    """A data set in three parts, and the mean and spread of its training pixels."""

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    mean: tuple[float, ...]  # per channel, of train pixels in [0, 1]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()  # what was left out or decided, one sentence each, by name

    def about(self) -> dict[str, Any]:
        """What somebody needs to use a network trained on it: classes, how images are prepared."""
        return {
            "classes": list(self.classes),
            "mean": list(self.mean),
            "std": list(self.std),
            "image_size": self.train.images.shape[1],
        }

    def fingerprint(self) -> dict[str, Any]:
        """`about`, how many images each part has of each class in turn, and how bright some of them
        are: what tells these images from others, as far as that can be told without reading all.
        """
        parts = {part: getattr(self, part) for part in PARTS}
        return self.about() | {
            "images": {part: len(split.labels) for part, split in parts.items()},
            "labels": {part: zlib.crc32(split.labels.tobytes()) for part, split in parts.items()},
            "brightness": {part: _brightness(split.images) for part, split in parts.items()},
        }


def _brightness(images: np.ndarray) -> list[float]:
    """The mean of up to 64 images that are spread evenly over a part."""
    chosen = np.linspace(0, len(images) - 1, min(len(images), 64)).astype(int)
    return [round(float(images[i].mean()), 1) for i in chosen]


def same_images(found: Mapping[str, Any], began: Mapping[str, Any], *parts: str) -> bool:
    """Whether two fingerprints tell of the same images in the same order in these parts; what
    another version of a decoder changes in a pixel doesn't count. An older one can't tell.
    """
    if "brightness" not in began:
        return True
    pairs = [(found["brightness"][part], began["brightness"][part]) for part in parts]
    return all(len(a) == len(b) and np.allclose(a, b, rtol=0, atol=1) for a, b in pairs)


def load(
    source: str,
    *,
    image_size: int | None,
    seed: int = 0,
    cache: Path | None = None,
    train: int | None = None,
    val: int | None = None,
    test: int | None = None,
    progress: bool = True,
) -> Data:
    """Load `source`: "generated", a name in TORCHVISION_SETS, or the path of a folder.

    `image_size` is in pixels; None takes the source's own, or a sensible one. `train`, `val` and
    `test` limit the number of images of each part; None takes the source's own. `cache` is where
    drawn, decoded and downloaded images are kept (default: `cache.default_cache()`).

    Raises CourseError where the source, the sizes or the cache can't be used.
    """
    wanted = {"train": train, "val": val, "test": test}
    _check(image_size, seed, wanted)
    cache = default_cache() if cache is None else Path(cache)
    if source == "generated":
        counts = {part: wanted[part] or GENERATED_COUNTS[part] for part in PARTS}
        return generated(counts, image_size or GENERATED_SIZE, seed, cache, progress=progress)
    if source in TORCHVISION_SETS:
        return from_torchvision(source, image_size, seed, cache, wanted, progress=progress)
    return from_folder(source, image_size, seed, cache, wanted, progress=progress)


def generated(
    counts: Mapping[str, int], size: int, seed: int, cache: Path, *, progress: bool = True
) -> Data:
    """Draw `counts` vehicle scenes per part, or map those that an earlier call has drawn."""
    splits = [_drawn(part, counts[part], size, seed, cache, progress) for part in PARTS]
    return _data("generated", vehicles.CLASSES, dict(zip(PARTS, splits, strict=True)), counts)


def from_folder(
    folder: str,
    image_size: int | None,
    seed: int,
    cache: Path,
    wanted: Mapping[str, int | None],
    *,
    progress: bool = True,
) -> Data:
    """Load the user's images; `scan.py` tells the layouts, `decode.py` what is decoded."""
    if not _exists(folder):
        known = ", ".join(["generated", *TORCHVISION_SETS])
        raise CourseError(
            f"There is no folder and no data set {folder!r}: name one of {known} or a folder with"
            " one sub-folder of images per class."
        )
    scan = scan_folder(folder)
    size = image_size or default_image_size(scan, LARGEST_DEFAULT_SIZE)
    found = load_folder(scan, size, seed, cache, progress=progress)
    splits = {part: Split(*found.parts[part]) for part in PARTS}
    return _data(scan.root.name, scan.classes, splits, wanted, found.notes)


def _exists(folder: str) -> bool:
    try:
        return Path(folder).expanduser().exists()
    except (OSError, RuntimeError):  # no file can have that name; ~name of nobody
        return False


def from_torchvision(
    name: str,
    image_size: int | None,
    seed: int,
    cache: Path,
    wanted: Mapping[str, int | None],
    *,
    progress: bool = True,
) -> Data:
    """Load a data set of torchvision's; a tenth of its training part (or `wanted`) becomes val."""
    images, labels, classes = torchvision_part(name, True, cache, progress=progress)
    test_images, test_labels, _ = torchvision_part(name, False, cache, progress=progress)
    order, test_order = _shuffled(labels, seed), _shuffled(test_labels, seed)
    held_out = min(wanted["val"] or len(labels) // 10, len(labels) // 2)
    splits = {
        "train": _rows(images, labels, order[held_out:][: wanted["train"]], image_size),
        "val": _rows(images, labels, order[:held_out], image_size),
        "test": _rows(test_images, test_labels, test_order[: wanted["test"]], image_size),
    }
    notes = (f"val: {held_out:,} images are cut from the training part.",)
    return _data(name, classes, splits, wanted, notes)


def channel_statistics(
    images: np.ndarray, most: int = 5_000
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of every channel, of pixels in [0, 1].

    `images`: uint8 [N, H, W, C]. Only the first `most` are read, so that a large memory map needn't
    be; every prefix of a part holds the classes in proportion.
    """
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    for image in images[:most]:
        pixels = image.reshape(-1, channels)
        counts += np.stack([np.bincount(pixels[:, c], minlength=256) for c in range(channels)])
    levels = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    variance = share @ levels**2 - mean**2
    # At least one level, so that dividing by it is safe when every pixel is the same.
    std = np.sqrt(np.maximum(variance, 1 / 255**2))
    return tuple(mean.tolist()), tuple(std.tolist())


def _check(image_size: int | None, seed: int, wanted: Mapping[str, int | None]) -> None:
    if image_size is not None and not SMALLEST_SIZE <= image_size <= LARGEST_SIZE:
        raise CourseError(
            f"The image size is {image_size} pixels: choose one from {SMALLEST_SIZE} to"
            f" {LARGEST_SIZE}."
        )
    if seed < 0:
        raise CourseError(f"The seed is {seed}: choose 0 or a positive whole number.")
    for part, count in wanted.items():
        if count is not None and count < 1:
            raise CourseError(f"{count} {part} images were asked for: ask for at least 1.")


def _data(
    name: str,
    classes: tuple[str, ...],
    splits: Mapping[str, Split],
    wanted: Mapping[str, int | None],
    notes: tuple[str, ...] = (),
) -> Data:
    """Cut every part to what is wanted, say where there is less, and measure the channels."""
    kept = {}
    for part, split in splits.items():
        kept[part] = Split(split.images[: wanted[part]], split.labels[: wanted[part]])
        count = len(split.labels)
        if count < (wanted[part] or 0):
            notes += (f"{part}: {wanted[part]:,} images were asked for, {count:,} are there.",)
    mean, std = channel_statistics(kept["train"].images)
    return Data(name, classes, kept["train"], kept["val"], kept["test"], mean, std, notes)


def _drawn(part: str, count: int, size: int, seed: int, cache: Path, progress: bool) -> Split:
    """The first `count` scenes of a part, or more: a longer file serves, as scene i is always the
    same.
    """
    home = cache / "generated"
    family = f"v{vehicles.VERSION}-{size}px-seed{seed}-{part}"
    there = [path.name.rpartition("-")[2] for path in home.glob(f"{family}-*")]
    lengths = [int(length) for length in there if length.isdigit()]
    stored = min((length for length in lengths if length >= count), default=count)

    def build(aside: Path) -> None:
        labels = np.empty(stored, dtype=np.int64)
        with RowWriter(aside / "images.npy", (size, size, 3)) as writer:
            for i in tqdm(range(stored), f"Drawing {part}", unit="img", disable=not progress):
                image, labels[i] = vehicles.draw(seed, part, i, size=size)
                writer.append(image[None])
        np.save(aside / "labels.npy", labels)

    target, needs = home / f"{family}-{stored}", stored * size * size * 3
    return built_once(target, _open, build, family=family, needs=needs, progress=progress)


def _open(folder: Path) -> Split:
    return Split(np.load(folder / "images.npy", mmap_mode="c"), np.load(folder / "labels.npy"))


def _shuffled(labels: np.ndarray, seed: int) -> np.ndarray:
    """A random order of positions in which the classes take turns."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    return shuffled[stratified_order(labels[shuffled])]


def _rows(images: np.ndarray, labels: np.ndarray, rows: np.ndarray, size: int | None) -> Split:
    return Split(resized(images[rows], size or images.shape[1]), labels[rows])
