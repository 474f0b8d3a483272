"""Every figure of the course: plain data in, a Matplotlib `Figure` with its alt text out."""

from course_lib.plots.rounds import accuracy_figure, size_figure, throughput_figure
from course_lib.plots.style import alt_text, save

__all__ = ["accuracy_figure", "alt_text", "save", "size_figure", "throughput_figure"]
