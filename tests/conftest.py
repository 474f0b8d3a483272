"""What every test shares: threads, property-test profiles, skips without a GPU."""

from __future__ import annotations

import os

# Before torch is imported: `make test` starts one worker per core, so each keeps to one thread.
# It also fixes the order of floating-point sums, and with it the trained numbers, on all machines
# of one kind. Processes that a test starts inherit it. A value set outside wins.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import pytest
from hypothesis import HealthCheck, settings

# `course` is deterministic: the same cases on every machine and every day. `thousands` draws new
# ones each time. A property test that needs more or fewer cases than its profile gives asks for
# a multiple: @settings(max_examples=3 * settings.default.max_examples).
_SLOW_IS_FINE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile(
    "course", max_examples=100, derandomize=True, database=None, **_SLOW_IS_FINE
)
settings.register_profile("thousands", max_examples=2000, print_blob=True, **_SLOW_IS_FINE)
settings.load_profile("course")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` where there is no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
