"""Small folders of images, and what came of them, for the tests of folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from course_lib.errors import CourseError
from course_lib.images.folder import FolderImages, load_folder
from course_lib.images.layout import PARTS
from course_lib.images.scan import scan_folder

SIZE = 4


def draw(path: Path, red: int, number: int) -> Path:
    """A one-colour image: red tells its class, green and blue which image it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (red, number // 256, number % 256)).save(path)
    return path


def fill(tree: Path, counts: dict[str, int], start: int = 0) -> Path:
    """`counts` images per class, whose class is in their red channel: 0, 10, 20, …"""
    for label, (name, count) in enumerate(sorted(counts.items())):
        (tree / name).mkdir(parents=True, exist_ok=True)
        for i in range(start, start + count):
            draw(tree / name / f"{i}.png", 10 * label, i)
    return tree


def load(root: Path, seed: int = 0, size: int = SIZE) -> FolderImages:
    return load_folder(scan_folder(root), size, seed, root.parent / "cache", progress=False)


def colours(found: FolderImages, part: str) -> list[tuple[int, int]]:
    """(red, number) of every image of a part, in order."""
    pixels = found.parts[part][0][:, 0, 0].astype(int)
    return [(int(red), int(high * 256 + low)) for red, high, low in pixels]


def all_colours(found: FolderImages) -> list[tuple[int, int]]:
    """(red, number) of every image of every part."""
    return [colour for part in PARTS for colour in colours(found, part)]


def counts(found: FolderImages) -> dict[str, list[int]]:
    return {part: np.bincount(found.parts[part][1]).tolist() for part in PARTS}


def raises(root: Path) -> str:
    with pytest.raises(CourseError) as caught:
        load(root)
    message = str(caught.value)
    assert "\n" not in message
    return message


def trees(**kinds: dict[str, int]) -> Callable[[Path], object]:
    return lambda root: [fill(root / name, kind) for name, kind in kinds.items()]
