"""Draws street scenes with one vehicle in the middle; the task is to name the vehicle's colour.

Every image is a pure function of (seed, split, index, size), so nothing has to be downloaded or
stored. The scene's layout does not depend on the size: the same index shows the same street.
Drawn at twice the size with Pillow, then reduced, lit and given noise as a camera would.
The eight classes are those of the public benchmark by Chen et al. (2014).
"""

from __future__ import annotations

import math
import zlib
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from course_lib.errors import CourseError
from course_lib.vehicles.bodies import Colour, Pen, draw_vehicle, mix, shade, uniform

CLASSES = ("black", "blue", "cyan", "gray", "green", "red", "white", "yellow")
VERSION = 3  # raise it whenever a drawing changes: caches of drawn images are keyed by it

# Paints of each class in plain daylight; a body's paint lies between two of its class's.
PALETTE: dict[str, tuple[Colour, ...]] = {
    "black": ((10, 10, 12), (22, 22, 26), (34, 36, 42)),
    "blue": ((20, 32, 96), (28, 66, 190), (78, 124, 214)),
    "cyan": ((16, 128, 138), (40, 184, 202), (126, 214, 222)),
    "gray": ((96, 98, 102), (120, 122, 126), (148, 150, 154)),
    "green": ((14, 66, 34), (40, 140, 60), (116, 178, 70)),
    "red": ((116, 14, 20), (205, 28, 32), (222, 64, 48)),
    "white": ((214, 214, 210), (236, 236, 236), (250, 246, 236)),
    "yellow": ((204, 164, 20), (240, 206, 40), (236, 214, 104)),
}


def _paint(rng: np.random.Generator, label: int) -> Colour:
    """A paint of the class: between two of its palette's entries."""
    entries = PALETTE[CLASSES[label]]
    first, second = int(rng.integers(len(entries))), int(rng.integers(len(entries)))
    return mix(entries[first], entries[second], rng.random())


def _any_colour(rng: np.random.Generator) -> Colour:
    """A colour for shirts, signs and façades: any paint of any class."""
    return _paint(rng, int(rng.integers(len(CLASSES))))


def _tree(pen: Pen, rng: np.random.Generator, x: float, ground: float, height: float) -> None:
    leaf = mix((34, 72, 30), (104, 138, 62), rng.random())
    pen.box(x - height * 0.04, ground - height * 0.6, x + height * 0.04, ground, (74, 58, 44))
    for _ in range(3):
        dx, dy = uniform(rng, -0.18, 0.18), uniform(rng, 0.5, 0.85)
        crown = uniform(rng, 0.18, 0.3) * height
        pen.disc(x + dx * height, ground - dy * height, crown, crown * 0.85,
                 shade(leaf, uniform(rng, 0.8, 1.2)))  # fmt: skip


def _building(pen: Pen, rng: np.random.Generator, x: float, ground: float) -> None:
    width, height = uniform(rng, 0.18, 0.42), uniform(rng, 0.14, 0.42)
    wall = mix((150, 140, 128), _any_colour(rng), 0.7 * rng.random())
    pane = mix((40, 48, 60), (170, 186, 196), rng.random())
    pen.box(x, ground - height, x + width, ground, wall)
    floors, columns = int(rng.integers(2, 5)), int(rng.integers(2, 5))
    for floor in range(floors):
        top = ground - height * (0.92 - floor / floors * 0.9)
        pen.box(x, top, x + width, top + height * 0.45 / floors, pane)
    step = width / columns
    for column in range(columns + 1):
        pen.box(x + (column - 0.28) * step, ground - height, x + (column + 0.28) * step, ground,
                wall)  # fmt: skip
    pen.box(x - 0.01, ground - height - 0.015, x + width + 0.01, ground - height,
            shade(wall, 0.7))  # fmt: skip


def _sign(pen: Pen, rng: np.random.Generator, ground: float) -> None:
    x, height, half = rng.random(), uniform(rng, 0.15, 0.35), uniform(rng, 0.03, 0.1)
    pen.box(x - 0.006, ground - height, x + 0.006, ground, (96, 98, 100))
    pen.box(x - half, ground - height, x + half, ground - height + half * 1.1, _any_colour(rng))


def _street(pen: Pen, rng: np.random.Generator, horizon: float) -> None:
    """Sky, buildings, trees, signs, pavement and road."""
    high = mix((70, 126, 196), (196, 202, 208), rng.random())
    low = mix(high, (236, 232, 222), uniform(rng, 0.2, 0.9))
    for band in range(5):
        pen.box(0, band * horizon / 5, 1, (band + 1) * horizon / 5, mix(high, low, band / 4))
    kerb = horizon + 0.05
    for _ in range(int(rng.integers(1, 5))):
        _building(pen, rng, uniform(rng, -0.2, 0.9), horizon + 0.01)
    pen.box(0, horizon, 1, kerb, mix((150, 146, 140), (92, 118, 62), rng.random() ** 2))
    road = mix((62, 62, 66), (140, 136, 130), rng.random())
    pen.box(0, kerb, 1, 1, road)
    for _ in range(int(rng.integers(0, 4))):
        _tree(pen, rng, rng.random(), kerb, uniform(rng, 0.2, 0.5))
    for _ in range(int(rng.integers(0, 3))):
        _sign(pen, rng, kerb)
    mark, y = shade(road, 1.6), uniform(rng, 0.88, 0.96)
    for dash in range(3):
        pen.box(dash * 0.4 - 0.05, y, dash * 0.4 + 0.15, y + 0.018, mark)


def _person(pen: Pen, rng: np.random.Generator, x: float, ground: float, height: float) -> None:
    half = height * 0.13
    pen.box(x - half * 0.7, ground - height * 0.5, x + half * 0.7, ground, _any_colour(rng))
    pen.box(x - half, ground - height * 0.83, x + half, ground - height * 0.42, _any_colour(rng))
    pen.disc(x, ground - height * 0.91, half * 0.7, half * 0.8, (196, 150, 120))


def _occluder(pen: Pen, rng: np.random.Generator, ground: float) -> None:
    """Something between the camera and the vehicle: a pole, a fence, a tree or a person."""
    x, kind = uniform(rng, 0.15, 0.85), int(rng.integers(4))
    if kind == 0:
        width = uniform(rng, 0.01, 0.025)
        pen.box(x - width, 0, x + width, ground + 0.1, mix((60, 62, 64), _any_colour(rng), 0.3))
    elif kind == 1:
        colour, top = mix((120, 112, 100), _any_colour(rng), 0.5), ground - 0.02
        for rail in (0.0, 0.06):
            pen.box(0, top + rail, 1, top + rail + 0.014, colour)
        for post in range(8):
            pen.box(post / 7 - 0.008, top - 0.03, post / 7 + 0.008, top + 0.12, colour)
    elif kind == 2:
        _tree(pen, rng, 0.08 if x < 0.5 else 0.92, ground + 0.1, uniform(rng, 0.5, 0.8))
    else:
        _person(pen, rng, x, ground + 0.04, uniform(rng, 0.24, 0.36))


def _scene(rng: np.random.Generator, label: int, paint: Colour, scale: int) -> Image.Image:
    """The whole street with its vehicles, in plain daylight, `scale` pixels wide and high."""
    horizon = uniform(rng, 0.34, 0.5)
    canvas = Image.new("RGB", (scale, scale))
    pen = Pen(ImageDraw.Draw(canvas), scale)
    _street(pen, rng, horizon)
    size, ground = uniform(rng, 0.3, 0.44), uniform(rng, 0.72, 0.84)
    for _ in range(int(rng.integers(1, 4))):
        other = (label + int(rng.integers(1, len(CLASSES)))) % len(CLASSES)
        near = uniform(rng, 0.4, 0.68)
        where = horizon + 0.05 + (ground - horizon - 0.05) * near * 0.8
        # Beside the vehicle rather than behind it: what is hidden could not mislead anyone.
        x = uniform(rng, -0.05, 0.34) if rng.random() < 0.5 else uniform(rng, 0.66, 1.05)
        draw_vehicle(pen, rng, _paint(rng, other), _any_colour, x, where, size * near)
    draw_vehicle(pen, rng, paint, _any_colour, uniform(rng, 0.42, 0.58), ground, size)
    if rng.random() < 0.45:
        _occluder(pen, rng, ground)
    return canvas


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres from -0.5 to 0.5, as a column (y) and a row (x)."""
    line = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    return line[:, None], line[None, :]


def _photograph(rng: np.random.Generator, canvas: Image.Image, size: int) -> np.ndarray:
    """Light and camera: blur, exposure, colour cast, haze, a cast shadow, noise. uint8 [H, W, 3]"""
    blur = uniform(rng, -0.8, 1.1) * size / 64
    if blur > 0.2:
        canvas = canvas.filter(ImageFilter.BoxBlur(blur))
    image = np.asarray(canvas.reduce(2), dtype=np.float32)
    gain = np.exp(uniform(rng, -0.36, 0.2) + 0.07 * rng.standard_normal(3))
    haze = max(0.0, uniform(rng, -0.2, 0.25))
    image = image * (gain * (1 - haze)).astype(np.float32) + np.float32(205 * haze)
    # The shadow of something outside the picture; it lies on the street, not in the sky.
    angle, offset, dark = uniform(rng, 0.4, 2.7), uniform(rng, 0, 0.4), rng.random()
    y, x = _grid(size)
    shaded = math.cos(angle) * x + math.sin(angle) * y > offset
    image *= np.where(shaded, np.float32(1 - 0.5 * dark), np.float32(1))[..., None]
    noise = rng.standard_normal((size, size, 3), dtype=np.float32)
    image += noise * np.float32(uniform(rng, 1, 9))
    return np.clip(image, 0, 255, out=image).astype(np.uint8)


def _generator(seed: int, split: str, index: int, size: int) -> np.random.Generator:
    """The random numbers of one image: the same on every machine and in every process."""
    if seed < 0 or index < 0:
        raise CourseError(f"Seed {seed} and index {index} must both be 0 or more.")
    if size < 16:
        raise CourseError(f"An image size of {size} pixels is too small: choose 16 or more.")
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(split.encode()), index]))


def draw(seed: int, split: str, index: int, size: int = 64) -> tuple[np.ndarray, int]:
    """One image, uint8 [size, size, 3], and its label; the same arguments give the same bytes.

    The label is the index into CLASSES of the paint of the largest vehicle, near the middle.
    Raises CourseError for a negative seed or index, or a size below 16 pixels.
    """
    rng = _generator(seed, split, index, size)
    label = int(rng.integers(len(CLASSES)))
    canvas = _scene(rng, label, _paint(rng, label), 2 * size)
    return _photograph(rng, canvas, size), label


def draw_many(seed: int, split: str, count: int, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """The first images of a split: uint8 [count, size, size, 3]; their labels: int64 [count]."""
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    labels = np.empty(count, dtype=np.int64)
    for index in range(count):
        images[index], labels[index] = draw(seed, split, index, size)
    return images, labels
