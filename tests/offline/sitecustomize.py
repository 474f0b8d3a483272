"""Python reads this at its start, since tests/conftest.py puts the folder on PYTHONPATH."""

import refuse_network  # noqa: F401
