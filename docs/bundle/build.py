"""`make bundle`: all that a class without internet needs, in build/bundle.

That is the course, the wheels of everything it pins, and scripts that install the one from the
other. pip downloads the wheels, so pip's own settings hold: PIP_EXTRA_INDEX_URL, say, for an index
that has PyTorch without CUDA.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = {"install.sh": "\n", "install.cmd": "\r\n"}
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"

# For another system pip picks that system's wheels, but it reads a requirement's condition, such as
# `sys_platform == "win32"`, on the machine it runs on. So it is told the other system's answers.
PIP_FOR_ANOTHER_SYSTEM = """
import json, sys
from pip._vendor.packaging import markers
here, there = markers.default_environment, json.loads(sys.argv.pop(1))
markers.default_environment = lambda: {**here(), **there}
from pip._internal.cli.main import main
sys.exit(main())
"""


@dataclass(frozen=True)
class System:
    """An operating system: its name, its wheels' tags, what conditions of requirements ask."""

    name: str
    tags: tuple[str, ...]
    answers: dict[str, str] = field(default_factory=dict)


SYSTEMS = {
    "linux": System(
        "Linux (x86-64)",
        ("manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in range(17, 36))),
        {"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux"}
        | {"platform_machine": "x86_64"},
    ),
    "macos": System(
        "macOS (Apple silicon)",
        ("macosx_15_0_arm64",),  # and what runs on older ones
        {"os_name": "posix", "sys_platform": "darwin", "platform_system": "Darwin"}
        | {"platform_machine": "arm64"},
    ),
    "windows": System(
        "Windows (x86-64)",
        ("win_amd64",),
        {"os_name": "nt", "sys_platform": "win32", "platform_system": "Windows"}
        | {"platform_machine": "AMD64"},
    ),
}


def pip_download(root: Path, wheels: Path, system: str, python: str) -> list[str]:
    """The command that downloads wheels for a system ("" for this one) and a Python version."""
    building = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
    wanted = ["-r", str(root / "requirements.txt"), *building["requires"], "--dest", str(wheels)]
    download = ["download", "--disable-pip-version-check", "--only-binary=:all:", *wanted]
    if not system and python == HERE:
        return [sys.executable, "-m", "pip", *download]
    there = SYSTEMS[system or this_system()]
    answers = {**there.answers, "python_version": python, "python_full_version": f"{python}.0"}
    tags = [f"--platform={tag}" for tag in there.tags]
    command = [sys.executable, "-c", PIP_FOR_ANOTHER_SYSTEM, json.dumps(answers)]
    return [*command, *download, *tags, f"--python-version={python}", "--implementation=cp"]


def run_pip(command: Sequence[str]) -> None:
    """Raises CalledProcessError where it fails."""
    subprocess.run(command, check=True)


def this_system() -> str:
    """The name of the system this runs on."""
    return {"Windows": "windows", "Darwin": "macos"}.get(platform.system(), "linux")


def copy_course(root: Path, out: Path) -> None:
    """The course without git's history, and without what .gitignore names."""
    lines = (root / ".gitignore").read_text(encoding="utf-8").splitlines()
    patterns = [line.rstrip("/").split("/")[-1] for line in lines if line and line[0] != "#"]
    shutil.copytree(root, out, ignore=shutil.ignore_patterns(".git", *patterns))


def write_scripts(out: Path, versions: Sequence[str]) -> None:
    """The scripts that install, which refuse a Python that the wheels are not for."""
    for name, newline in SCRIPTS.items():
        text = Path(__file__).with_name(name).read_text(encoding="utf-8")
        text = text.replace("@VERSIONS@", " ".join(versions))
        (out / name).write_text(text, encoding="utf-8", newline=newline)


def readme(out: Path, systems: Sequence[str], versions: Sequence[str]) -> str:
    """What is in the bundle, how large it is, and what to type."""
    wheels = sorted((out / "wheels").iterdir(), key=lambda path: -path.stat().st_size)
    sizes = {
        "course/": size(out / "course"),
        f"wheels/, files: {len(wheels)}": size(out / "wheels"),
        **{f"of it {path.name.split('-')[0]}": path.stat().st_size for path in wheels[:3]},
    }
    rows = "\n".join(f"| {name} | {amount / 1e6:,.1f} MB |" for name, amount in sizes.items())
    here = f"{platform.system()} ({platform.machine()})"
    where = " or ".join(SYSTEMS[name].name if name else here for name in systems)
    text = Path(__file__).with_name("README.template").read_text(encoding="utf-8")
    words = {"@WHERE@": where, "@VERSIONS@": " or ".join(versions), "@SIZES@": rows}
    for mark, word in words.items():
        text = text.replace(mark, word)
    return text


def size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def build(out: Path, systems: Sequence[str], versions: Sequence[str], root: Path = ROOT) -> None:
    """Write the bundle. Raises CalledProcessError where pip can't download."""
    shutil.rmtree(out, ignore_errors=True)
    (out / "wheels").mkdir(parents=True)
    for system in systems:
        for version in versions:
            run_pip(pip_download(root, out / "wheels", system, version))
    copy_course(root, out / "course")
    write_scripts(out, versions)
    (out / "README.md").write_text(readme(out, systems, versions), encoding="utf-8")


def main() -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--platform", nargs="*", choices=list(SYSTEMS), help="default: this one")
    parser.add_argument("--python-version", nargs="*", help="such as 3.12; default: this one's")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bundle")
    parser.add_argument("--tar", action="store_true", help="pack it into one file as well")
    options = parser.parse_args()
    try:
        build(options.out, options.platform or [""], options.python_version or [HERE])
    except subprocess.CalledProcessError:
        print("The wheels could not be downloaded: see what pip says above.", file=sys.stderr)
        return 2
    print(f"{options.out}: {size(options.out) / 1e9:.2f} GB, see its README.md")
    if options.tar:
        print(shutil.make_archive(str(options.out), "tar", options.out.parent, options.out.name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
