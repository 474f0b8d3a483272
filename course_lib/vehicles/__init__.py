"""Generated street scenes, numpy and Pillow only, nothing to download."""

from course_lib.vehicles.bodies import BODIES
from course_lib.vehicles.scene import CLASSES, PALETTE, VERSION, draw, draw_many

__all__ = ["BODIES", "CLASSES", "PALETTE", "VERSION", "draw", "draw_many"]
