"""Draws one vehicle: seven body types as outlines, from the side, three quarters or head-on.

Used by `scene.py`, which puts the vehicles into a street. Coordinates run from 0 to 1 over the
picture, so that a drawing does not depend on its size in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
Place = Callable[[float, float], Point]
Tint = Callable[[np.random.Generator], Colour]


@dataclass(frozen=True)
class Body:
    """A body type: the side view in a unit box, rear at x = 0, front at x = 1, top at y = 1."""

    aspect: float  # height over length
    width: float  # width over length
    outline: tuple[Point, ...]  # from the rear's lower corner over the roof to the front's
    glass: tuple[int, ...]  # edges of the outline that are windscreens
    windows: tuple[tuple[Point, ...], ...]
    wheels: tuple[float, ...]
    radius: float  # of a wheel, over length
    shoulder: float  # height of the windows' lower edge
    tuck: float  # how much narrower the roof is than the body, each side, over width


def _panes(
    left: float, right: float, low: float, high: float, count: int
) -> tuple[tuple[Point, ...], ...]:
    """A row of equal rectangular windows."""
    step = (right - left) / count
    edges = [(left + i * step, left + (i + 0.86) * step) for i in range(count)]
    return tuple(((a, low), (a, high), (b, high), (b, low)) for a, b in edges)


BODIES: dict[str, Body] = {
    "hatchback": Body(
        0.37, 0.42, ((0, 0.05), (0, 0.5), (0.04, 0.62), (0.13, 0.97), (0.2, 1), (0.55, 1),
                     (0.73, 0.61), (0.95, 0.52), (1, 0.4), (1, 0.05)), (2, 5),
        (((0.11, 0.62), (0.17, 0.92), (0.36, 0.92), (0.36, 0.62)),
         ((0.39, 0.62), (0.39, 0.92), (0.54, 0.92), (0.67, 0.62))),
        (0.19, 0.81), 0.085, 0.6, 0.13),
    "saloon": Body(
        0.32, 0.39, ((0, 0.05), (0, 0.55), (0.03, 0.64), (0.16, 0.67), (0.29, 1), (0.56, 1),
                     (0.72, 0.65), (0.96, 0.54), (1, 0.42), (1, 0.05)), (3, 5),
        (((0.22, 0.67), (0.31, 0.92), (0.43, 0.92), (0.43, 0.67)),
         ((0.46, 0.67), (0.46, 0.92), (0.55, 0.92), (0.66, 0.67))),
        (0.19, 0.81), 0.077, 0.63, 0.14),
    "estate": Body(
        0.39, 0.41, ((0, 0.05), (0, 0.56), (0.05, 0.96), (0.09, 1), (0.58, 1), (0.74, 0.63),
                     (0.97, 0.56), (1, 0.44), (1, 0.05)), (1, 4),
        (((0.07, 0.64), (0.1, 0.92), (0.26, 0.92), (0.26, 0.64)),
         ((0.29, 0.64), (0.29, 0.92), (0.43, 0.92), (0.43, 0.64)),
         ((0.46, 0.64), (0.46, 0.92), (0.57, 0.92), (0.68, 0.64))),
        (0.19, 0.8), 0.088, 0.62, 0.1),
    "van": Body(
        0.45, 0.38, ((0, 0.05), (0, 0.97), (0.03, 1), (0.7, 1), (0.79, 0.94), (0.91, 0.56),
                     (0.99, 0.45), (1, 0.05)), (4,),
        (((0.68, 0.54), (0.68, 0.86), (0.77, 0.86), (0.86, 0.54)),),
        (0.19, 0.81), 0.072, 0.56, 0.04),
    "pickup": Body(
        0.34, 0.37, ((0, 0.08), (0, 0.56), (0.4, 0.56), (0.42, 1), (0.63, 1), (0.76, 0.61),
                     (0.97, 0.55), (1, 0.42), (1, 0.08)), (2, 4),
        (((0.45, 0.62), (0.46, 0.92), (0.53, 0.92), (0.53, 0.62)),
         ((0.56, 0.62), (0.56, 0.92), (0.62, 0.92), (0.71, 0.62))),
        (0.2, 0.82), 0.09, 0.6, 0.12),
    "bus": Body(
        0.35, 0.27, ((0, 0.05), (0, 0.96), (0.02, 1), (0.97, 1), (0.985, 0.94), (1, 0.44),
                     (1, 0.05)), (4,), _panes(0.04, 0.96, 0.54, 0.84, 6),
        (0.2, 0.8), 0.058, 0.5, 0.01),
    "lorry": Body(
        0.42, 0.3, ((0, 0.14), (0, 1), (0.7, 1), (0.71, 0.8), (0.88, 0.8), (0.96, 0.5),
                    (1, 0.44), (1, 0.05), (0.71, 0.05), (0.7, 0.14)), (4,),
        (((0.78, 0.5), (0.78, 0.73), (0.86, 0.73), (0.92, 0.5)),),
        (0.12, 0.26, 0.85), 0.066, 0.5, 0.02),
}  # fmt: skip


@dataclass(frozen=True)
class Pen:
    """Draws in coordinates from 0 to 1, so that a scene does not depend on its size in pixels."""

    ink: ImageDraw.ImageDraw
    scale: int

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        scale = self.scale
        self.ink.polygon([(x * scale, y * scale) for x, y in points], fill=colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        scale = self.scale
        if right > left and bottom > top:
            self.ink.rectangle((left * scale, top * scale, right * scale, bottom * scale), colour)

    def disc(self, x: float, y: float, across: float, up: float, colour: Colour) -> None:
        scale = self.scale
        box = ((x - across) * scale, (y - up) * scale, (x + across) * scale, (y + up) * scale)
        self.ink.ellipse(box, fill=colour)

    def line(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        scale = self.scale
        ends = (start[0] * scale, start[1] * scale, end[0] * scale, end[1] * scale)
        self.ink.line(ends, fill=colour, width=max(1, round(width * scale)))


@dataclass(frozen=True)
class _Look:
    """What one vehicle looks like, apart from its body type."""

    paint: Colour
    glass: Colour
    stripe: Colour | None
    facing: int  # 1: the front points right in a side view, or at the viewer in a head-on view
    turn: float  # angle away from the side view, radians; its sign says which end shows
    tilt: float  # how much of the roof shows: the camera's height
    dirt: float  # how much mud covers the lower part


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A random number between low and high."""
    return low + (high - low) * rng.random()


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour that lies this share of the way from the first to the second."""
    a, b, c = (round(x + (y - x) * share) for x, y in zip(first, second, strict=True))
    return a, b, c


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor below 1) or lighter."""
    red, green, blue = colour
    return min(255, int(red * factor)), min(255, int(green * factor)), min(255, int(blue * factor))


def _look(rng: np.random.Generator, paint: Colour, any_colour: Tint) -> _Look:
    glass = mix((24, 30, 38), (120, 140, 156), rng.random() ** 2)
    stripe = any_colour(rng) if rng.random() < 0.12 else None
    facing = 1 if rng.random() < 0.5 else -1
    turn = uniform(rng, -1.0, 1.0)
    return _Look(paint, glass, stripe, facing, turn, uniform(rng, 0.08, 0.28), rng.random() ** 3)


def _side_on(pen: Pen, body: Body, look: _Look, x: float, ground: float, length: float) -> None:
    """A vehicle from the side or three quarters: its outline, pushed back along the depth."""
    squeeze = math.cos(look.turn)
    depth = body.width * length
    back = (math.sin(look.turn) * depth, -look.tilt * depth)
    height, radius = body.aspect * length, body.radius * length
    middle, base, scale = x - back[0] / 2, ground - 0.7 * radius, look.facing * squeeze * length

    def at(along: float, up: float) -> Point:
        return middle + (along - 0.5) * scale, base - up * height

    _wheels(pen, body, at, ground + back[1], back[0], radius, squeeze, far=True)
    rear, front = at(0, 0), at(1, 0)
    foot = [(rear[0], ground), (front[0], ground), (front[0] + back[0], ground + back[1]),
            (rear[0] + back[0], ground + back[1])]  # fmt: skip
    pen.polygon(foot, (28, 28, 30))
    _swept(pen, body, look, at, back)
    _end(pen, look, at, back)
    _flank(pen, body, look, at)
    _wheels(pen, body, at, ground, 0.0, radius, squeeze, far=False)


def _swept(pen: Pen, body: Body, look: _Look, at: Place, back: Point) -> None:
    """Roof, bonnet, screens and the visible end: every edge of the outline moved along `back`."""
    points = [at(*point) for point in body.outline]
    for index, (start, end) in enumerate(pairwise(points)):
        normal = (look.facing * (end[1] - start[1]), -look.facing * (end[0] - start[0]))
        if normal[0] * back[0] + normal[1] * back[1] <= 0:
            continue
        up = -normal[1] / (math.hypot(*normal) + 1e-9)
        far_end = (end[0] + back[0], end[1] + back[1])
        far_start = (start[0] + back[0], start[1] + back[1])
        pen.polygon((start, end, far_end, far_start), shade(look.paint, 0.78 + 0.34 * up))
        if index in body.glass:
            pen.polygon(_inset((start, end, far_end, far_start), 0.12), shade(look.glass, 1.15))


def _inset(corners: Sequence[Point], share: float) -> list[Point]:
    """The corners moved towards their centre by a share of the way."""
    x = sum(corner[0] for corner in corners) / len(corners)
    y = sum(corner[1] for corner in corners) / len(corners)
    return [(a + (x - a) * share, b + (y - b) * share) for a, b in corners]


def _end(pen: Pen, look: _Look, at: Place, back: Point) -> None:
    """Lamps, plate and grille on the end that shows in a three-quarter view."""
    front = look.facing * back[0] > 0
    edge = 1.0 if front else 0.0

    def patch(left: float, right: float, low: float, high: float, colour: Colour) -> None:
        lower, upper = at(edge, low), at(edge, high)
        corners = [(lower, left), (upper, left), (upper, right), (lower, right)]
        pen.polygon([(p[0] + s * back[0], p[1] + s * back[1]) for p, s in corners], colour)

    lamp: Colour = (244, 240, 214) if front else (196, 22, 24)
    patch(0, 1, 0.04, 0.15, (40, 40, 42))
    if front:
        patch(0.3, 0.7, 0.2, 0.36, (34, 34, 38))
    patch(0.06, 0.24, 0.27, 0.39, lamp)
    patch(0.76, 0.94, 0.27, 0.39, lamp)
    patch(0.38, 0.62, 0.08, 0.16, (226, 226, 214))


def _flank(pen: Pen, body: Body, look: _Look, at: Place) -> None:
    """The near side: body, sill, stripe, windows, door lines, lamps."""
    pen.polygon([at(*point) for point in body.outline], look.paint)
    low = max(body.outline[0][1], 0.05)
    mud = (at(0, low), at(0, 0.3), at(1, 0.26), at(1, low))
    pen.polygon(mud, mix(look.paint, (112, 96, 76), 0.7 * look.dirt))
    sill = (at(0, low), at(0, low + 0.1), at(1, low + 0.1), at(1, low))
    pen.polygon(sill, shade(look.paint, 0.55))
    pen.line(at(0.02, 0.47), at(0.97, 0.42), 0.006, shade(look.paint, 1.25))
    if look.stripe is not None:
        pen.polygon((at(0, 0.3), at(0, 0.38), at(1, 0.36), at(1, 0.28)), look.stripe)
    for window in body.windows:
        pen.polygon([at(*point) for point in window], look.glass)
    seam = body.windows[-1][0][0]
    pen.line(at(seam, body.shoulder), at(seam, 0.16), 0.004, shade(look.paint, 0.6))
    pen.polygon((at(0.95, 0.38), at(0.95, 0.46), at(0.99, 0.44), at(1, 0.36)), (240, 236, 206))
    pen.polygon((at(0, 0.38), at(0, 0.5), at(0.03, 0.5), at(0.03, 0.38)), (190, 24, 24))


def _wheels(pen: Pen, body: Body, at: Place, ground: float, shift: float, radius: float,
            squeeze: float, far: bool) -> None:  # fmt: skip
    """The wheels of the near or the far side."""
    across, y = radius * max(squeeze, 0.35), ground - radius
    for along in body.wheels:
        x = at(along, 0)[0] + shift
        pen.disc(x, y, across * 1.12, radius * 1.12, (14, 14, 15))
        if not far:
            pen.disc(x, y, across * 0.6, radius * 0.6, (150, 152, 156))
            pen.disc(x, y, across * 0.22, radius * 0.22, (60, 60, 64))


def _head_on(pen: Pen, body: Body, look: _Look, x: float, ground: float, length: float) -> None:
    """A vehicle from straight ahead or straight behind."""
    width, height = body.width * length, body.aspect * length
    wheel, front = body.radius * length, look.facing > 0
    base = ground - 0.6 * wheel

    def at(along: float, up: float) -> Point:
        return x + (along - 0.5) * width, base - up * height

    def patch(left: float, right: float, low: float, high: float, colour: Colour) -> None:
        (a, b), (c, d) = at(left, high), at(right, low)
        pen.box(a, b, c, d, colour)

    shoulder, tuck = body.shoulder, body.tuck
    pen.disc(x, ground, width * 0.56, wheel * 0.35, (30, 30, 32))
    for left in (0.03, 0.8):
        pen.box(*at(left, 0.3), at(left + 0.17, 0)[0], ground, (16, 16, 17))
    roof = (at(0.03, shoulder), at(tuck, 0.97), at(tuck + 0.05, 1), at(0.95 - tuck, 1),
            at(1 - tuck, 0.97), at(0.97, shoulder))  # fmt: skip
    pen.polygon(roof, shade(look.paint, 1.06))
    screen = (at(0.1, shoulder + 0.01), at(tuck + 0.07, 0.9), at(0.93 - tuck, 0.9),
              at(0.9, shoulder + 0.01))  # fmt: skip
    pen.polygon(screen, look.glass)
    nose = (at(0, 0.06), at(0, 0.48), at(0.04, shoulder), at(0.96, shoulder), at(1, 0.48),
            at(1, 0.06))  # fmt: skip
    pen.polygon(nose, look.paint)
    pen.line(at(0.05, shoulder - 0.02), at(0.95, shoulder - 0.02), 0.008, shade(look.paint, 1.3))
    patch(0, 1, 0.06, 0.16, (44, 44, 46))
    lamp: Colour = (246, 242, 216) if front else (200, 22, 24)
    patch(0.04, 0.22, 0.32, 0.42, lamp)
    patch(0.78, 0.96, 0.32, 0.42, lamp)
    if front:
        patch(0.28, 0.72, 0.24, 0.38, (34, 34, 38))
    patch(0.38, 0.62, 0.12, 0.2, (228, 228, 216))


def draw_vehicle(pen: Pen, rng: np.random.Generator, paint: Colour, any_colour: Tint, x: float,
                 ground: float, size: float) -> None:  # fmt: skip
    """One vehicle of any type from any view; `size` is about the square root of its area.

    `any_colour` picks the colour of a stripe.
    """
    body = tuple(BODIES.values())[int(rng.integers(len(BODIES)))]
    look = _look(rng, paint, any_colour)
    if rng.random() < 0.2:
        _head_on(pen, body, look, x, ground, size / math.sqrt(body.aspect * body.width))
    else:
        _side_on(pen, body, look, x, ground, size / math.sqrt(body.aspect))
