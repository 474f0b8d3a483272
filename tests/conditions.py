"""What holds wherever a notebook runs without a learner: under test, or again for publication."""

from __future__ import annotations

import os


def set_them() -> None:
    """Set the environment that kernels inherit; before torch is imported.

    One thread, unless set outside: it fixes the order of floating-point sums, and with it the
    trained numbers, on all machines of one kind. Everything on the CPU. Nobody's progress is
    written.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("COURSE_DEVICE", "cpu")
    os.environ["COURSE_PROGRESS"] = "off"
