"""The exercises of the notebooks: checks with messages, predictions, progress, and how to show."""

from course_lib.lessons.catalogue import check, choose, predict, show_progress
from course_lib.lessons.show import expect, show

__all__ = ["check", "choose", "expect", "predict", "show", "show_progress"]
