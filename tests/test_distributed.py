"""Two processes under PyTorch's launcher, on the CPU, against one."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from distributed_worker import three_steps
from tiny import tiny_data

from course_lib import distributed
from course_lib.config import Config
from course_lib.errors import CourseError
from course_lib.iterate import iterate
from course_lib.run import resumed_config
from course_lib.training import Augmentation, Loader

CPU = torch.device("cpu")
WORKER = Path(__file__).with_name("distributed_worker.py")
OPTIONS = [
    *("run", "--device", "cpu", "--image-size", "16", "--base-width", "4", "--stem", "small"),
    *("--batches", "40", "--batch-size", "32", "--rounds", "2", "--finetune-batches", "12"),
    *("--final-batches", "0"),
    *("--fraction", "0.1", "--finetune-rate", "0.05", "--tolerance", "0.9"),
    *("--curve-every", "10", "--curve-images", "32", "--checkpoint-every", "9"),
]

needs_launcher = pytest.mark.skipif(
    sys.platform == "win32"
    or not torch.distributed.is_available()
    or not torch.distributed.is_gloo_available(),
    reason="this PyTorch has no distributed training with gloo",
)


LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def command(out: Path, seen: Path, *more: str, dies_at: int = 0) -> list[str]:
    """The command line in two processes, on tiny data."""
    seen.mkdir(exist_ok=True)
    return [*LAUNCHER, *map(str, (WORKER, seen, dies_at, *OPTIONS, "--out", out, *more))]


def launch(out: Path, seen: Path, *more: str, dies_at: int = 0) -> subprocess.CompletedProcess[str]:
    """What becomes of it."""
    started = command(out, seen, *more, dies_at=dies_at)
    return subprocess.run(started, env=single_threaded(), timeout=120, **PIPES)


def single_threaded() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def config_of_run(out: Path) -> Config:
    return Config(**json.loads((out / "config.json").read_text()))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def history(out: Path) -> list[dict]:
    times = ("seconds", "images_per_second")
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in times} for line in lines]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A finished run of two processes: its folder, what each ended with, what they said."""
    folder = tmp_path_factory.mktemp("together")
    done = launch(folder / "out", folder / "seen")
    assert done.returncode == 0, done.stderr
    ends = [torch.load(folder / "seen" / f"{rank}.pt") for rank in (0, 1)]
    return folder / "out", ends, done


# ---- without the launcher


def test_alone_there_is_no_process_group(monkeypatch):
    # The launcher's variables for a single process: still alone.
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert distributed.join(CPU) == CPU
    assert (distributed.rank(), distributed.world()) == (0, 1)
    assert not torch.distributed.is_available() or not torch.distributed.is_initialized()
    network = torch.nn.Linear(2, 2)
    assert distributed.wrap(network) is network
    assert distributed.on_first(lambda: 7) == distributed.first_then_others(lambda: 7) == 7
    assert not distributed.lost_another(RuntimeError("gloo"))
    distributed.check_shares(1)
    with pytest.raises(CourseError, match="as it was"):
        distributed.on_first(refuse)


def refuse() -> None:
    raise CourseError("as it was")


def test_shares_make_up_the_batch_and_move_as_in_the_whole():
    def batch(**share: int) -> tuple[torch.Tensor, torch.Tensor]:
        loader = Loader(tiny_data(), CPU, batch_size=12, seed=5, **share)
        loader.augmentation = Augmentation()
        return loader.training_batch("round 1", 9)

    images, labels = batch()
    for rank in range(3):
        mine, truth = batch(rank=rank, world=3)
        assert truth.tolist() == labels[rank::3].tolist() and len(truth) == 4
        torch.testing.assert_close(mine, images[rank::3], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("batch", "processes", "fine"),
    [(64, 2, True), (63, 2, False), (2, 2, False), (4, 2, True), (64, 3, False), (8, 8, False)],
)
def test_unequal_shares_are_refused(monkeypatch, batch, processes, fine):
    monkeypatch.setattr(distributed, "world", lambda: processes)
    if fine:
        distributed.check_shares(batch)
    else:
        with pytest.raises(CourseError, match=f"multiple of {processes}"):
            distributed.check_shares(batch)


@pytest.mark.parametrize(
    ("device", "words"), [("cuda", "1 cuda device for 2"), ("mps", "1 mps device for 2")]
)
def test_fewer_devices_than_processes_are_refused(monkeypatch, device, words):
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(CourseError, match=f"{words} processes: use --nproc-per-node 1"):
        distributed.join(torch.device(device))


# ---- with it


@needs_launcher
def test_two_machines_do_what_two_processes_of_one_do(together, tmp_path):
    """A launcher for each machine, as on a cluster; here both are on this one."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}", "--rdzv-id=test"]
    launcher = [*LAUNCHER[:3], "--nnodes=2", "--nproc-per-node=1", *meeting]
    rest = command(tmp_path / "out", tmp_path / "seen")[len(LAUNCHER) :]
    machines = [
        subprocess.Popen([*launcher, *rest], env=single_threaded(), **PIPES) for _ in range(2)
    ]
    try:
        said = [one.communicate(timeout=120) for one in machines]
    finally:
        for one in machines:
            one.kill()
    assert [one.returncode for one in machines] == [0, 0], said
    assert history(tmp_path / "out") == history(together[0])


@needs_launcher
def test_gradients_are_those_of_the_whole_batch(together):
    expected = three_steps()
    for end in together[1]:
        assert end["steps"].keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(end["steps"][name], expected[name], rtol=0, atol=1e-10)


@needs_launcher
def test_both_processes_end_with_the_network_that_is_saved(together):
    out, (first, second), _ = together
    saved = weights(out / "network.pt")
    assert first["world"] == second["world"] == 2
    assert first["weights"].keys() == second["weights"].keys() == saved.keys()
    for name in saved:
        assert torch.equal(first["weights"][name], saved[name]), name
        assert torch.equal(second["weights"][name], saved[name]), name


@needs_launcher
def test_it_is_as_accurate_as_one_process(together, tmp_path):
    config = config_of_run(together[0])
    alone = []
    for seed in (0, 1):
        # Of two rounds: in the second, this little network's own seeds are 0.4 apart.
        single = replace(config, seed=seed, rounds=1)
        state = iterate(single, tiny_data(), tmp_path, CPU, progress=False)
        alone.append([line["val_accuracy"] for line in state.history])
    both = [line["val_accuracy"] for line in history(together[0])]
    assert len(both) == 3
    for mine, others in zip(both[:2], zip(*alone, strict=True), strict=True):
        # 64 images: four of them beyond what the seeds of one process span.
        assert min(others) - 4 / 64 <= mine <= max(others) + 4 / 64


@needs_launcher
def test_one_run_is_written_and_reported(together):
    out, _, done = together
    assert [line["batches"] for line in history(out)] == [40, 52, 64]
    curve = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    base = [point["batches"] for point in curve if point["phase"] == "base"]
    assert base == [10, 20, 30, 40]
    assert (out / "summary.json").exists() and not list(out.glob(".*.part"))
    assert done.stdout.count("report.html") == 1
    assert done.stderr.count("64/64") >= 1 and "Traceback" not in done.stderr


@needs_launcher
def test_a_killed_process_ends_the_run_and_resume_goes_on(together, tmp_path):
    out, seen, clock = tmp_path / "out", tmp_path / "seen", time.monotonic()
    died = launch(out, seen, dies_at=47)
    assert died.returncode != 0 and time.monotonic() - clock < 60
    assert "--resume" in died.stderr and "SIGKILL" in died.stderr
    assert not (out / "summary.json").exists() and not list(seen.iterdir())
    # The number of processes is no part of the run.
    shutil.copytree(out, tmp_path / "alone")
    config, alone = config_of_run(out), tmp_path / "alone"
    state = iterate(config, tiny_data(), alone, CPU, resume=True, progress=False)
    assert history(alone)[0] == history(together[0])[0] and len(state.history) == 3
    done = launch(out, seen, "--resume")
    assert done.returncode == 0, done.stderr
    expected = weights(together[0] / "network.pt")
    resumed = weights(out / "network.pt")
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    assert history(out) == history(together[0])


@needs_launcher
def test_an_error_is_said_once_and_ends_both(together, tmp_path):
    out = together[0]
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    refused = launch(out, tmp_path / "seen")
    assert refused.returncode != 0
    assert refused.stderr.count("holds the results of another run") == 1
    assert "course_lib/__main__.py" not in refused.stderr, "no traceback of ours"
    assert refused.stderr.count("exitcode  : 2") == 2
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@needs_launcher
@pytest.mark.parametrize(
    ("option", "words"),
    [(("--depth", "19"), "invalid choice: 19"), (("--device", "mps"), "has no mps device")],
)
def test_what_all_processes_refuse_is_said_once(tmp_path, option, words):
    if "mps" in option and torch.backends.mps.is_available():
        pytest.skip("this machine has that device")
    arguments = ["-m", "course_lib", "run", "--out", str(tmp_path / "out"), *option]
    refused = subprocess.run([*LAUNCHER, *arguments], env=single_threaded(), timeout=120, **PIPES)
    assert refused.returncode != 0 and refused.stderr.count(words) == 1, refused.stderr
    assert "course_lib/__main__.py" not in refused.stderr, "no traceback of ours"
    assert refused.stderr.count("exitcode  : 2") == 2, refused.stderr
    assert not (tmp_path / "out").exists()


@needs_launcher
def test_lost_before_the_first_checkpoint_it_can_be_resumed_as_it_says(tmp_path):
    out = tmp_path / "out"
    died = launch(out, tmp_path / "seen", dies_at=3)
    assert died.returncode != 0 and "--resume" in died.stderr
    assert not (out / "checkpoint.pt").exists()
    assert resumed_config(out, None, {}).batches == 40


@needs_launcher
def test_ctrl_c_says_once_how_to_go_on_together(tmp_path):
    out = tmp_path / "out"
    started = command(out, tmp_path / "seen", "--batches", "4000")
    process = subprocess.Popen(
        started,
        env=single_threaded(),
        # Where tests run in the background, Ctrl-C may be ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **PIPES,
    )
    begun = time.monotonic()
    while not (out / "checkpoint.pt").exists():
        assert process.poll() is None and time.monotonic() - begun < 100
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert error.count("Stopped.") == 1 and "course_lib/__main__.py" not in error, error
    together = "-m torch.distributed.run --standalone --nproc-per-node 2 -m course_lib run"
    assert f"{together} --out {shlex.quote(str(out))} --resume --device cpu\n" in error
    torch.load(out / "checkpoint.pt", weights_only=True)  # whole
