"""A small folder of drawn vehicles that is as untidy as a folder of photographs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from course_lib.errors import CourseError
from course_lib.vehicles import CLASSES, draw

MARK = "drawn by the course.txt"  # in a folder that may be thrown away and drawn again
SIZE = 64
ODD = (
    *("ROTATED.JPG", "palette.gif", "alpha.png", "cmyk.jpg", "large.webp", "tiny.bmp"),
    *("truncated.jpg", "empty.jpg", "sixteen bits.tif", "a page.jpg", "notes.txt"),
    "copy of 0009.png",
)
ROTATED = 6  # EXIF: turn a quarter clockwise to see it upright


def make_photos(folder: Path, counts: Mapping[str, int], seed: int = 9) -> tuple[str, ...]:
    """Draw `counts` images per class, DIR/<class>/0001.png, and a dozen odd files among them.

    Returns the names of the odd files, below the folder. What an earlier call drew is replaced.
    Raises CourseError for a class that isn't one of `vehicles.CLASSES`, and where the folder holds
    anything that an earlier call didn't draw.
    """
    unknown = [name for name in counts if name not in CLASSES]
    if unknown:
        raise CourseError(f"No vehicle is {unknown[0]!r}: choose from {', '.join(CLASSES)}.")
    if folder.exists():
        _refuse_strange(folder)
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).write_text("Images drawn by notebook 09: safe to remove.\n", encoding="utf-8")
    waiting, index = dict(counts), 0
    while any(waiting.values()):
        pixels, label = draw(seed, "photos", index, size=SIZE)
        index, name = index + 1, CLASSES[label]
        if waiting.get(name):
            waiting[name] -= 1
            place = folder / name
            place.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(place / f"{counts[name] - waiting[name]:04d}.png")
    return _odd_files(folder, *list(counts)[:2])


def _refuse_strange(folder: Path) -> None:
    """Raise CourseError where a folder holds what the course didn't draw."""
    if not (folder / MARK).is_file():
        raise CourseError(f"{folder} isn't a folder that the course drew: name another one.")
    for path in folder.rglob("*"):
        drawn = path.name in (MARK, *ODD) or re.fullmatch(r"\d{4}\.png|.* again\.png", path.name)
        if path.is_file() and not drawn:
            raise CourseError(
                f"{path} isn't the course's, and {folder} is drawn anew: move it elsewhere."
            )


def _odd_files(folder: Path, one: str, other: str) -> tuple[str, ...]:
    """Rewrite some of a class's images in other formats, break some, and copy some."""
    place = folder / one
    files = sorted(place.iterdir())
    pictures = [Image.open(file).convert("RGB") for file in files[:8]]
    for file in files[:8]:
        file.unlink()
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    pictures[0].transpose(Image.Transpose.ROTATE_90).save(place / "ROTATED.JPG", exif=exif)
    pictures[1].quantize(32).save(place / "palette.gif")
    cut_out = pictures[2].copy()
    cut_out.putalpha(Image.linear_gradient("L").resize(cut_out.size))
    cut_out.save(place / "alpha.png")
    pictures[3].convert("CMYK").save(place / "cmyk.jpg")
    grey = np.asarray(pictures[4].convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(place / "sixteen bits.tif")
    pictures[5].resize((640, 480)).save(place / "large.webp")
    pictures[6].resize((9, 7)).save(place / "tiny.bmp")
    pictures[7].save(place / "truncated.jpg")
    whole = (place / "truncated.jpg").read_bytes()
    (place / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (place / "empty.jpg").write_bytes(b"")
    (place / "a page.jpg").write_text("<html>not found</html>", encoding="utf-8")
    (place / "notes.txt").write_text("the van is from Tuesday", encoding="utf-8")
    shutil.copy(files[8], place / "copy of 0009.png")
    shutil.copy(files[9], folder / other / f"{one} again.png")
    return (*(f"{one}/{name}" for name in sorted(ODD)), f"{other}/{one} again.png")
