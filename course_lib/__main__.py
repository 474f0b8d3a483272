"""The command line: python -m course_lib run …, doctor, progress, score.

PyTorch is imported only once a run begins, so that help and wrong options are answered at once, and
`doctor` works where PyTorch doesn't.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

from course_lib import doctor, launcher, machine
from course_lib.config import DEVICES, PRESETS, Config, default_preset, make_config
from course_lib.errors import CourseError
from course_lib.interrupt import raise_on_sigterm

NEW_NETWORK = """\
    from course_lib.resnet import load_network
    network = load_network("{path}")"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, 2 for something the user can fix, 130 for
    Ctrl-C (143 for SIGTERM).
    """
    for stream in (sys.stdout, sys.stderr):
        _never_fail_on_a_name(stream)
    if not sys.stderr.isatty():  # a log file has no use for ten lines of progress a second
        os.environ.setdefault("TQDM_MININTERVAL", "10")
    with launcher.said_once():
        options = vars(make_parser().parse_args(arguments))
    command = options.pop("command")
    commands: dict[str, Callable[..., int]] = {
        "run": _run,
        "doctor": _doctor,
        "progress": _progress,
        "score": _score,
    }
    try:
        return commands[command](**options)
    except CourseError as error:
        # One line, whatever the names in it hold.
        print(f"course_lib: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        number = stopped.args[0] if stopped.args else signal.SIGINT
        # Ctrl-C comes to all processes of a launcher; it ends them with SIGTERM when one is lost.
        if launcher.first_here() or number != signal.SIGINT:
            print(f"\nStopped. {_how_to_go_on(**options)}", file=sys.stderr)
        return 128 + number


def _run(**options: Any) -> int:
    known = {option.name for option in fields(Config)}
    wanted = {name: value for name, value in options.items() if name in known}
    with launcher.said_once():
        preset = options.get("preset") or default_preset(options.get("data"))
        make_config(preset, **wanted)  # refuses a wrong value at once
        _import(doctor.PACKAGES.values())
    from course_lib.run import run

    return run(**options)


def _import(packages: Iterable[str]) -> None:
    try:
        for name in packages:
            importlib.import_module(name)
    except Exception as error:  # a broken installation raises nearly anything
        raise CourseError(
            f"{name} can't be imported ({type(error).__name__}: {error}): "
            "python -m course_lib doctor says what is wrong and how to fix it."
        ) from error


def _progress() -> int:
    _import([*doctor.PACKAGES.values(), doctor.LAB_PACKAGES["ipython"]])
    from course_lib.lessons import show_progress

    show_progress()
    return 0


def _score(files: list[Path], seed: str | None = None, **options: Any) -> int:
    _import(doctor.PACKAGES.values())
    from course_lib.challenge import ask_secret, score_files

    table, refused = score_files(files, ask_secret(seed), **options)
    if table:
        print(table)
    if refused:
        raise CourseError(" ".join(refused))
    return 0


def _doctor() -> int:
    checks = doctor.examine()
    print(doctor.describe(checks))
    return 2 if any(check.verdict == doctor.PROBLEM for check in checks) else 0


def _how_to_go_on(out: Path | None = None, **options: Any) -> str:
    """What to type after Ctrl-C."""
    if out is None or not (out / "config.json").exists():
        return "Nothing was begun."
    begun = (out / "checkpoint.pt").exists()
    reached = "What was reached is saved" if begun else "Only the options are saved yet"
    if begun and launcher.processes() > 1:  # their batch isn't finished first
        reached = "The last checkpoint is kept"
    launched = launcher.arguments()
    if launched is None:
        return f"{reached}; go on with the same commands and --resume."
    command = [machine.python_command(), *launched]
    command += ["-m", "course_lib", "run", "--out", str(out), "--resume"]
    for name in ("device", "cache"):
        if options.get(name):
            command += [f"--{name}", str(options[name])]
    if options.get("quiet"):
        command.append("--quiet")
    return f"{reached}; go on with:\n{machine.quoted(command)}"


def _never_fail_on_a_name(stream: TextIO) -> None:
    """Names of files may hold letters that a terminal can't show: show something in their place."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def make_parser() -> argparse.ArgumentParser:
    """One option per field of Config, beside those that say where and how to run."""
    parser = argparse.ArgumentParser(
        prog="python -m course_lib", description="Train, prune and measure residual networks."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="check that this machine has all that the course needs")
    commands.add_parser("progress", help="show which exercises of the notebooks are done")
    _add_score(commands)
    command = commands.add_parser(
        "run",
        help="train a network, prune it round by round, and report what that bought",
        usage="%(prog)s --out DIR [--data DIR] [--preset NAME] [more options: --help lists them]",
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The pruned network can be loaded with\n"
        + NEW_NETWORK.format(path="DIR/network.pt"),
    )
    command.add_argument(
        "--out", type=_folder, required=True, metavar="DIR", help="for the results"
    )
    command.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="where options start from (default: laptop for generated images, photos for others)",
    )
    command.add_argument("--resume", action="store_true", help="go on with the run in --out")
    command.add_argument("--device", choices=DEVICES, help="default: auto, the fastest there is")
    command.add_argument(
        "--cache", type=_folder, metavar="DIR", help="where drawn and decoded images are kept"
    )
    command.add_argument("--quiet", action="store_true", help="no progress, only the result")
    group = command.add_argument_group("what is run; the defaults are the laptop preset's")
    for option in fields(Config):
        _add_option(group, option)
    return parser


def _add_score(commands: Any) -> None:
    command = commands.add_parser(
        "score",
        help="score networks handed in to the challenge: see docs/challenge.md",
        argument_default=argparse.SUPPRESS,
    )
    command.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="NAME.pt of a network, or a folder"
    )
    command.add_argument(
        "--seed", metavar="SECRET", help="default: COURSE_CHALLENGE_SEED, or it is asked for"
    )
    command.add_argument("--gate", type=float, metavar="X", help="accuracy to reach, default: 0.95")
    command.add_argument("--images", type=int, metavar="N", help="to score on, default: 2000")
    command.add_argument("--board", type=Path, metavar="CSV", help="leaderboard to enter them on")
    command.add_argument("--name", help="of the entry, default: that of the file")


def _folder(text: str) -> Path:
    if not text.strip():  # an unset variable of the shell; Path("") would be the current folder
        raise argparse.ArgumentTypeError("it is empty: name a folder")
    return Path(os.path.expanduser(text))


def _add_option(group: Any, option: Any) -> None:
    """A command-line option for one field of Config, its type read off the field's annotation."""
    name = "--" + option.name.replace("_", "-")
    help = option.metadata["help"] + (f" (default: {option.default})" if option.default else "")
    if option.type == "bool":
        group.add_argument(
            name, action=argparse.BooleanOptionalAction, help=option.metadata["help"]
        )
        return
    kind = {"int": int, "int | None": int, "float": float}.get(option.type, str)
    choices = option.metadata.get("choices")
    metavar = None if choices else {int: "N", float: "X", str: "NAME"}[kind]
    group.add_argument(name, type=kind, choices=choices, metavar=metavar, help=help)


if __name__ == "__main__":
    raise_on_sigterm()
    sys.exit(main())
