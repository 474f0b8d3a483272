"""The command line: python -m course_lib run …"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from course_lib import checkpoint, report
from course_lib import data as data_sets
from course_lib.config import PRESETS, Config, make_config
from course_lib.data import Data
from course_lib.errors import CourseError
from course_lib.iterate import iterate
from course_lib.pruning import PruningError
from course_lib.training import DEVICES, pick_device

NEW_NETWORK = """\
    saved = torch.load("{path}", weights_only=True)
    network = ResNet(ResNetConfig.from_dict(saved["config"])).eval()
    network.load_state_dict(saved["state_dict"])"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, 2 for something the user can mend, 130 for
    Ctrl-C.
    """
    options = vars(make_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        return {"run": run}[command](**options)
    except (CourseError, PruningError) as error:
        print(f"course_lib: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\nStopped. Go on with the same command and --resume: "
            "everything up to the last checkpoint is saved.",
            file=sys.stderr,
        )
        return 130


def make_parser() -> argparse.ArgumentParser:
    """One option per field of Config, beside those that say where and how to run."""
    parser = argparse.ArgumentParser(
        prog="python -m course_lib", description="Train, prune and measure residual networks."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "run",
        help="train a network, prune it round by round, and report what that bought",
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The pruned network can be loaded with\n"
        + NEW_NETWORK.format(path="DIR/network.pt"),
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the results")
    command.add_argument(
        "--preset", choices=tuple(PRESETS), help="where options start from (default: laptop)"
    )
    command.add_argument("--resume", action="store_true", help="go on with the run in --out")
    command.add_argument("--device", choices=DEVICES, help="default: auto, the fastest there is")
    command.add_argument("--cache", type=Path, metavar="DIR", help="for generated and decoded data")
    command.add_argument("--quiet", action="store_true", help="no progress, only the result")
    group = command.add_argument_group("what is run; the defaults are the laptop preset's")
    for option in fields(Config):
        _add_option(group, option)
    return parser


def _add_option(group: Any, option: Any) -> None:
    """A command-line option for one field of Config, its type read off the field's annotation."""
    name = "--" + option.name.replace("_", "-")
    help = option.metadata["help"] + (f" (default: {option.default})" if option.default else "")
    if option.type == "bool":
        group.add_argument(
            name, action=argparse.BooleanOptionalAction, help=option.metadata["help"]
        )
        return
    kind = {"int": int, "int | None": int, "float": float, "str": str}[option.type]
    choices = option.metadata.get("choices")
    metavar = None if choices else {int: "N", float: "X", str: "NAME"}[kind]
    group.add_argument(name, type=kind, choices=choices, metavar=metavar, help=help)


def run(
    out: Path,
    preset: str | None = None,
    resume: bool = False,
    device: str = "auto",
    cache: Path | None = None,
    quiet: bool = False,
    **options: Any,
) -> int:
    """Begin or resume a run and report it."""
    place = pick_device(device)
    config = resumed_config(out, preset, options) if resume else begin(out, preset, options)
    try:
        with FileLock(out / ".lock", timeout=0):
            clock = time.perf_counter()
            try:
                data = load_data(config, cache, progress=not quiet)
            except CourseError:
                if not resume:  # nothing was begun, so the corrected command must not be refused
                    (out / "config.json").unlink()
                raise
            data_seconds = time.perf_counter() - clock
            for note in () if quiet else data.notes:
                print(note)
            state = iterate(config, data, out, place, resume=resume, progress=not quiet)
            summary = report.finish(state, data, out, place, data_seconds=data_seconds)
    except Timeout:
        raise CourseError(
            f"Another process is running in {out}: wait for it, or choose another --out."
        ) from None
    print(report.describe(summary))
    print(f"The report is {out / 'report.html'}; history and the network lie beside it.")
    return 0


def begin(out: Path, preset: str | None, options: dict[str, Any]) -> Config:
    """Check the options, make the folder, and write config.json first of all.

    Raises CourseError for a folder that holds another run or can't be written.
    """
    config = make_config(preset or "laptop", **options)
    if (out / "config.json").exists() or (out / "checkpoint.pt").exists():
        raise CourseError(
            f"{out} holds the results of another run: add --resume to go on with it, "
            "or choose another --out."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CourseError(
            f"{out} can't be made a folder for the results ({error.strerror}): "
            "choose another --out."
        ) from error
    checkpoint.write_text(out / "config.json", json.dumps(config.to_dict(), indent=2) + "\n")
    return config


def resumed_config(out: Path, preset: str | None, options: dict[str, Any]) -> Config:
    """The config of the run in a folder. Raises CourseError if there is none or other options are
    asked for.
    """
    path = out / "config.json"
    if not path.exists():
        raise CourseError(f"Nothing was begun in {out}: leave --resume away to begin.")
    try:
        config = Config(**json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        if isinstance(error, CourseError):
            raise
        raise CourseError(
            f"{path} is damaged or of another version: start again in another --out."
        ) from error
    base = make_config(preset).to_dict() if preset else config.to_dict()
    different = Config(**{**base, **options}).differences(config)
    if different:
        raise CourseError(
            f"The run in {out} had other options ({'; '.join(different)}): "
            "leave them away to resume it, or choose another --out."
        )
    return config


def load_data(config: Config, cache: Path | None, progress: bool) -> Data:
    """The images of a run."""
    return data_sets.load(
        config.data,
        image_size=config.image_size,
        seed=config.seed,
        cache=cache,
        train=config.train_images,
        val=config.val_images,
        test=config.test_images,
        progress=progress,
    )


if __name__ == "__main__":
    sys.exit(main())
