"""The command line called from tests, and what lies in the folders it works on."""

from __future__ import annotations

from pathlib import Path

from course_lib.__main__ import main

QUICK = [
    *("--batches", "4", "--finetune-batches", "2", "--rounds", "1", "--train-images", "64"),
    *("--val-images", "32", "--test-images", "32", "--base-width", "4", "--batch-size", "32"),
    *("--fraction", "0.2", "--quiet"),
]


def course(capsys, *arguments) -> tuple[int, str, str]:
    """Exit status, standard output and error of the command line."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stopped:  # argparse
        status = int(stopped.code or 0)
    written = capsys.readouterr()
    return status, written.out, written.err


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes, but for locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in files
        if path.name != ".lock"
    }


def refused(capsys, words: str, *arguments) -> str:
    """The one sentence with which the command is refused; there must be nothing else."""
    status, output, error = course(capsys, *arguments)
    assert (status, output) == (2, ""), error
    assert error.startswith("course_lib: ") and error.endswith("\n") and error.count("\n") == 1
    assert words in error
    return error
