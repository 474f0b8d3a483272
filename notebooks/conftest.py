"""A notebook that is tested alone, as in `pytest notebooks/00_start_here.ipynb`, runs as it does
among all tests: tests/conftest.py isn't read then.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from conditions import set_them

set_them()
