"""The challenge: who is ahead, what is refused, and that the secret stays one."""

from __future__ import annotations

import os
import pickle
import re
import unicodedata
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import QUICK, contents, course, refused

from course_lib import challenge, data, resnet, small, submission, training, vehicles
from course_lib.challenge import Entry, enter
from course_lib.errors import CourseError

PHRASE = "twelve blue vans"
FEW = ("--images", "40", "--gate", "0.9")


def entry(name: str = "anna", right: int = 960, parameters: int = 100, **more: Any) -> Entry:
    """Of 1,000 images; the gate is at 950."""
    usual = {"images": 1_000, "gate": 0.95, "macs": 7, "file": "f", "seed": "s", "date": "d"}
    return Entry(name=name, right=right, parameters=parameters, **{**usual, **more})


def names(entries: list[Entry]) -> list[str]:
    return [found.name for found in entries]


@pytest.fixture
def images() -> data.Split:
    return data.Split(*vehicles.draw_many(challenge.seed_of(PHRASE), "challenge", 40, 48))


@pytest.fixture
def full(tmp_path: Path) -> Path:
    path = tmp_path / "anna.pt"
    path.write_bytes((small.FOLDER / "full.pt").read_bytes())
    return path


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(challenge.SECRET, PHRASE)


# ---- the ranking, by hand


def test_over_the_gate_the_smallest_wins_and_under_it_the_most_accurate() -> None:
    entries = [
        entry("large", 990, 300),
        entry("under", 949, 10),
        entry("small", 950, 100),
        entry("least", 300, 1),
        entry("equal, fewer macs", 950, 300, macs=6),
        entry("equal, more right", 991, 300),
    ]
    order = ["small", "equal, fewer macs", "equal, more right", "large", "under", "least"]
    assert names(enter(entries, [], "")[0]) == order
    assert names(enter(entries[::-1], [], "")[0]) == order


@pytest.mark.parametrize(
    ("right", "images", "gate", "passed"),
    [
        (1900, 2000, 0.95, True),
        (1899, 2000, 0.95, False),
        (951, 1000, 0.951, True),
        (950, 1000, 0.951, False),
        (7, 10, 0.7, True),
    ],
)
def test_at_the_gate_is_over_it(right: int, images: int, gate: float, passed: bool) -> None:
    assert entry(right=right, images=images, gate=gate).passed is passed


def test_the_standard_error_is_the_binomial_one() -> None:
    assert entry(right=80, images=100).standard_error == pytest.approx(0.04)  # √(0.8 · 0.2 / 100)


def test_only_a_better_entry_replaces_the_one_there_is() -> None:
    there = [entry("anna", 960, 100), entry("ben", 970, 120)]
    for worse in (entry("anna", 999, 101), entry("anna", 949, 1), there[0]):
        kept, notes = enter([worse], there, "")
        assert kept == there and notes[0].startswith("anna keeps")
    better = entry("ben", 950, 99)
    kept, notes = enter([better], there, "")
    assert kept == [better, there[0]] and notes == []
    under = [entry("anna", 940, 50)]
    assert enter([there[0]], under, "")[0] == [there[0]]


@pytest.mark.parametrize("other", [{"seed": "t"}, {"gate": 0.9}, {"images": 500}])
def test_what_was_scored_otherwise_is_not_compared(other: dict[str, Any]) -> None:
    with pytest.raises(CourseError, match=r"^b\.csv was scored with another secret, gate or"):
        enter([entry("ben")], [entry("anna", **other)], "b.csv")


def test_the_table_has_places_for_those_that_passed() -> None:
    text = challenge.table([entry("anna", 960, 1_234, macs=56_789), entry("bo", 940)])
    first, second = text.splitlines()[1:3]
    assert first.split() == ["1", "anna", "96.00%", "±", "0.62%", "1,234", "56,789"]
    assert second.startswith("    –  bo") and second.endswith("under the gate")


# ---- the score


@pytest.mark.parametrize("name", small.NAMES)
def test_score_is_what_the_library_measures_on_the_same_images(
    name: str, images: data.Split
) -> None:
    handed_in = submission.read_submission(small.FOLDER / f"{name}.pt")
    known = replace(small.small_data(test=1, progress=False), test=images)
    loader = training.Loader(known, torch.device("cpu"))
    share = training.accuracy(small.load_small(name), loader.batches("test"))
    assert share > 0.8
    assert challenge.count_right(handed_in, images) / 40 == share


def test_sizes_are_those_on_the_card(full: Path, capsys) -> None:
    about = small.small_card()["networks"]["full"]
    _, text, _ = course(capsys, "score", full, *FEW)
    assert f"{about['parameters']:,}" in text and f"{about['macs']:,}" in text


def test_an_answer_that_is_no_number_is_wrong(images: data.Split) -> None:
    handed_in = submission.read_submission(small.FOLDER / "full.pt")
    with torch.no_grad():
        handed_in.network.fc.bias[0] = float("nan")
    logits = handed_in.network(torch.zeros(1, 3, 48, 48))
    assert logits.argmax() == 0, "taken for black, and so right for black vehicles"
    assert (images.labels == 0).any()
    assert challenge.count_right(handed_in, images) == 0


def test_the_same_secret_gives_the_same_score_and_another_gives_other_images(
    full: Path, capsys
) -> None:
    first, again = (course(capsys, "score", full, *FEW) for _ in range(2))
    assert first == again and first[0] == 0
    seeds = [challenge.seed_of(PHRASE), challenge.seed_of(PHRASE + "!")]
    drawn = [vehicles.draw(seed, "challenge", 0, 48)[0] for seed in seeds]
    assert seeds[0] != seeds[1] and (drawn[0] != drawn[1]).any()


def test_what_a_run_writes_can_be_handed_in(tmp_path: Path, capsys) -> None:
    run = ["run", "--preset", "smoke", "--image-size", "48", *QUICK, "--out", tmp_path]
    assert course(capsys, *run)[0] == 0
    status, text, error = course(capsys, "score", tmp_path / "network.pt", *FEW)
    assert (status, error) == (0, "") and "network" in text


def test_what_is_handed_in_from_a_notebook_is_read_again(tmp_path: Path) -> None:
    known = small.small_data(test=1, progress=False)
    submission.save_submission(small.load_small("pruned"), known, tmp_path / "anna.pt")
    found = submission.read_submission(tmp_path / "anna.pt")
    for name, value in small.load_small("pruned").state_dict().items():
        torch.testing.assert_close(found.network.state_dict()[name], value, rtol=0, atol=0)
    assert (found.mean, found.std) == (known.mean, known.std)


# ---- the leaderboard


def test_the_board_is_kept_in_a_file(full: Path, tmp_path: Path, capsys) -> None:
    board = tmp_path / "board.csv"
    assert course(capsys, "score", full, *FEW, "--board", board)[0] == 0
    ben = tmp_path / "ben.pt"
    ben.write_bytes((small.FOLDER / "pruned.pt").read_bytes())
    _, text, _ = course(capsys, "score", ben, *FEW, "--board", board)
    assert re.findall(r"^ +(\d)  (\w+)", text, re.MULTILINE) == [("1", "ben"), ("2", "anna")]
    before = board.read_text()
    assert len(before.splitlines()) == 3
    _, text, _ = course(capsys, "score", full, *FEW, "--board", board, "--name", "ben")
    assert "ben keeps the entry there was" in text and board.read_text() == before
    assert challenge.board_text(challenge.read_board(board)) == before
    refused(capsys, "another secret, gate or", "score", full, "--images", "30", "--board", board)
    assert board.read_text() == before


def test_a_board_that_cannot_be_written_stays_as_it_was(
    full: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = tmp_path / "board.csv"
    board.write_text(challenge.board_text([]))

    def no_space(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    refused(capsys, "board.csv can't be written", "score", full, *FEW, "--board", board)
    assert board.read_text() == challenge.board_text([])


@pytest.mark.parametrize(
    "text", ["name,right\nanna,3\n", "shopping\nmilk\n", "notes\n", "", "\0\n\0"]
)
def test_another_file_is_no_board(text: str, full: Path, tmp_path: Path, capsys) -> None:
    board = tmp_path / "board.csv"
    board.write_text(text)
    refused(capsys, "board.csv isn't a leaderboard", "score", full, *FEW, "--board", board)
    assert board.read_text() == text


def test_a_board_in_a_folder_that_is_not_there(full: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").touch()
    board = tmp_path / "file" / "board.csv"
    refused(capsys, "board.csv can't be used", "score", full, *FEW, "--board", board)


# ---- the secret


def test_the_secret_is_nowhere_afterwards(
    full: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNING_RESNETS_CACHE", str(tmp_path / "cache"))
    status, text, error = course(capsys, "score", full, *FEW, "--board", tmp_path / "board.csv")
    assert status == 0
    left = contents(tmp_path)
    assert set(left) - {".board.csv.lock"} == {"anna.pt", "board.csv"}
    known = f"{text}{error}{left['board.csv'].decode()}"
    seed = challenge.seed_of(PHRASE)
    assert not any(word in known for word in (PHRASE, str(seed), f"{seed:x}"))
    assert challenge.trace_of(PHRASE) in known


def test_a_trace_fits_many_secrets_but_tells_two_apart() -> None:
    traces = {challenge.trace_of(f"secret number {i}") for i in range(2_000)}
    assert all(len(trace) == 4 for trace in traces)
    assert 1_900 < len(traces) < 2_000  # some are met twice: 2,000² / 2 / 65,536 ≈ 30 pairs


def test_where_the_secret_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    assert challenge.ask_secret("from the option") == "from the option"
    assert challenge.ask_secret() == PHRASE
    monkeypatch.delenv(challenge.SECRET)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: "typed unseen")
    assert challenge.ask_secret() == "typed unseen"
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(CourseError, match=challenge.SECRET):
        challenge.ask_secret()


def test_a_secret_that_is_soon_guessed_is_refused(full: Path, capsys) -> None:
    refused(capsys, "too short to stay one", "score", full, "--seed", "1234567")


# ---- what is refused


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (Hostile.sign, "w"))

    sign = ""


def changed(**more: Any) -> dict[str, Any]:
    saved = torch.load(small.FOLDER / "pruned.pt", weights_only=True)
    return {**saved, **more}


def as_config(**more: Any) -> dict[str, Any]:
    return changed(config={**changed()["config"], **more})


def too_wide() -> dict[str, Any]:
    """A width that would take terabytes; its state dict is small."""
    return as_config(stem=10**12)


def too_deep() -> dict[str, Any]:
    stage = changed()["config"]["stages"][0]
    return as_config(stages=(stage * 40,))


def too_many() -> dict[str, Any]:
    block = {"widths": (2048, 2048), "stride": 1, "projection": "norm"}
    return as_config(stages=((block,) * 4,))


BAD = {
    "other widths": (lambda: as_config(stem=17), "isn't whole or isn't a network"),
    "wider than memory": (too_wide, "layers of 1 to 2,048 filters"),
    "a width that is a text": (lambda: as_config(stem="16"), "layers of 1 to 2,048 filters"),
    "no width": (lambda: as_config(stem=0), "layers of 1 to 2,048 filters"),
    "deep": (too_deep, "at most 64 blocks"),
    "many parameters": (too_many, "50 million parameters"),
    "ten classes": (lambda: as_config(classes=10), "8 classes"),
    "other classes": (lambda: changed(classes=list("abcdefgh")), "trained on other images"),
    "other size": (lambda: changed(image_size=32), "trained on other images: train on gen"),
    "classes that are a number": (lambda: changed(classes=8), "isn't whole or isn't"),
    "a size that is a tensor": (lambda: changed(image_size=torch.ones(9)), "isn't whole or isn't"),
    "no mean": (lambda: {k: v for k, v in changed().items() if k != "mean"}, "isn't whole or"),
    "mean of no number": (lambda: changed(mean=[0.1, float("nan"), 0.1]), "isn't whole or isn't"),
    "a list": (lambda: [1, 2], "isn't whole or isn't a network"),
    "weights alone": (lambda: changed()["state_dict"], "isn't whole or isn't a network"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_of_something_else_is_refused_in_a_sentence(
    kind: str, tmp_path: Path, capsys
) -> None:
    make, words = BAD[kind]
    torch.save(make(), tmp_path / "eve.pt")
    error = refused(capsys, words, "score", tmp_path / "eve.pt", *FEW)
    assert str(tmp_path / "eve.pt") in error


@pytest.mark.parametrize("kind", ["pickle", "torch", "old torch"])
def test_a_program_in_a_file_is_not_run(kind: str, tmp_path: Path, capsys) -> None:
    Hostile.sign, path = str(tmp_path / "was run"), tmp_path / "eve.pt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Hostile()))
    else:
        torch.save(changed(mean=Hostile()), path, _use_new_zipfile_serialization=kind == "torch")
    refused(capsys, "isn't whole or isn't a network", "score", path, *FEW)
    assert not Path(Hostile.sign).exists()
    with pytest.raises(Exception):  # noqa: B017 (a file object is no number)
        submission._three(torch.load(path, weights_only=False)["mean"])
    assert Path(Hostile.sign).exists(), "the program would have run"


@pytest.mark.parametrize("content", [b"", b"a text\n", "half"])
def test_what_is_no_network_is_refused(content: bytes | str, full: Path, capsys) -> None:
    whole = full.read_bytes()
    full.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    refused(capsys, "anna.pt isn't whole or isn't a network", "score", full, *FEW)


def test_a_file_that_is_not_there_or_no_file(tmp_path: Path, capsys) -> None:
    refused(capsys, "none.pt can't be read (No such file", "score", tmp_path / "none.pt", *FEW)
    (tmp_path / "folder").mkdir()
    refused(capsys, "folder holds no .pt file", "score", tmp_path / "folder", *FEW)


def test_too_large_a_file_is_not_read(
    full: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(5_000_000))
    assert bomb.stat().st_size < 10_000
    monkeypatch.setattr(submission, "LARGEST_FILE", 2**20)
    refused(capsys, "anna.pt is larger than 1 MiB", "score", full, *FEW)
    refused(capsys, "far larger than it seems", "score", bomb, *FEW)


def test_a_bad_file_does_not_keep_others_from_their_score(
    full: Path, tmp_path: Path, capsys
) -> None:
    (tmp_path / "eve.pt").write_text("a text")
    status, text, error = course(capsys, "score", tmp_path / "eve.pt", full, *FEW)
    assert status == 2 and "eve.pt isn't whole" in error and error.count("\n") == 1
    assert "anna" in text and "eve" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gate", "nan"), "--gate can't be nan"),
        (("--gate", "95"), "--gate can't be 95.0"),
        (("--images", "0"), "--images can't be 0"),
        (("--images", "9999999"), "--images can't be 9999999"),
        (("--name", "=1+1"), "'=1+1' can't be a name on the board"),
        (("--name", "-2"), "'-2' can't be a name on the board"),
        (("--name", "a,b\nc"), "can't be a name on the board"),
        (("--name", ""), "'' can't be a name on the board"),
    ],
)
def test_a_wrong_option_is_named(arguments: tuple, words: str, full: Path, capsys) -> None:
    option, value = arguments
    refused(capsys, words, "score", full, f"{option}={value}")


def test_a_folder_stands_for_the_networks_in_it(full: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "notes.txt").write_text("no network")
    status, text, error = course(capsys, "score", tmp_path, *FEW)
    assert (status, error) == (0, "") and text == course(capsys, "score", full, *FEW)[1]


def test_two_entries_need_two_names(full: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "anna.pt").write_bytes(full.read_bytes())
    status, table, error = course(capsys, "score", full, other / "anna.pt", *FEW)
    assert status == 2 and "anna" in table and f"entered as anna: rename {other}" in error
    refused(capsys, "--name names one entry", "score", full, other / "anna.pt", "--name", "x")


@pytest.mark.parametrize("name", ["Zoë K", "山田", "a-b_c.d", "नेहा", "สุดา"])
def test_names_of_all_alphabets_are_welcome(name: str) -> None:
    assert challenge.entrant(name) == name
    assert challenge.entrant(unicodedata.normalize("NFD", name)) == name


def test_a_file_with_an_odd_name_does_not_keep_the_others_out(
    full: Path, tmp_path: Path, capsys
) -> None:
    odd = ("bob (1).pt", "Zoe O'Brien.pt", "lin,chen.pt")
    passed_over = ("._anna.pt", "notes.txt", "carl.pth")
    for name in ("anna.pt", "DORA.PT", *odd, *passed_over):
        (tmp_path / name).write_bytes(full.read_bytes())
    (tmp_path / "eva.pt").write_bytes(b"no network")
    status, table, error = course(capsys, "score", tmp_path, *FEW)
    assert status == 2 and "anna" in table and "DORA" in table
    assert error.count("can't be a name on the board") == len(odd)
    for name in (*odd, "eva"):
        assert Path(name).stem in error and Path(name).stem not in table


# ---- the words of the help, which come without PyTorch


def test_help_names_the_defaults(capsys) -> None:
    _, text, _ = course(capsys, "score", "--help")
    for word in (f"default: {challenge.GATE}", f"default: {challenge.IMAGES}", challenge.SECRET):
        assert word in " ".join(text.split())


def test_the_bounds_admit_every_standard_network() -> None:
    for depth in resnet.DEPTHS:
        submission._require_size(resnet.resnet_config(depth, 8))
    assert small.small_data(test=1, progress=False).about()["image_size"] == 48
