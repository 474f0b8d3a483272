from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from tiny import TINY, tiny_data

from course_lib import checkpoint, measure, report
from course_lib import iterate as loop
from course_lib.__main__ import NEW_NETWORK
from course_lib.checkpoint import State
from course_lib.checks import as_begun
from course_lib.errors import CourseError
from course_lib.iterate import describe, gate_level, iterate, make_loader
from course_lib.pruning import find_groups, l2, select
from course_lib.resnet import ResNet, ResNetConfig, config_of, load_network
from course_lib.training import accuracy, predict

CPU = torch.device("cpu")


def run(config, out, **options) -> State:
    out.mkdir(exist_ok=True)
    return iterate(config, tiny_data(), out, CPU, progress=False, **options)


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def timeless(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return run(TINY, out), out


def test_history_has_a_line_per_round_that_agrees_with_the_networks(finished):
    _, out = finished
    history = lines(out / "history.jsonl")
    assert [line["round"] for line in history] == [0, 1, 2, 3]
    assert [line["batches"] for line in history] == [24, 30, 36, 42]
    assert history[0]["val_accuracy_pruned"] is None
    start = history[0]["widths"]
    for line in history:
        network = ResNet(ResNetConfig.from_dict(line["network"]))
        assert line["parameters"] == measure.count_parameters(network)
        assert line["filters"] == sum(line["widths"].values())
        expected = {n: max(2, int(w * 0.8 ** line["round"] + 0.5)) for n, w in start.items()}
        assert line["widths"] == expected
    seconds = [line["seconds"] for line in history]
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert all(0 <= line["val_accuracy_pruned"] <= 1 for line in history[1:])


def test_the_saved_network_is_the_one_that_passed(finished):
    state, out = finished
    network = load_network(out / "network.pt")
    assert config_of(network).to_dict() == state.history[-1]["network"]
    again = accuracy(network, make_loader(TINY, tiny_data(), CPU).batches("val"))
    assert again == state.history[-1]["val_accuracy"]
    full = accuracy(
        load_network(out / "full.pt"), make_loader(TINY, tiny_data(), CPU).batches("val")
    )
    assert full == state.history[0]["val_accuracy"]
    assert full > 0.8, "three bright channels are easy: the loop really trains"


def test_balanced_accuracy_is_scikit_learns(finished):
    state, out = finished
    logits, labels = predict(
        load_network(out / "network.pt"), make_loader(TINY, tiny_data(), CPU).batches("val")
    )
    expected = balanced_accuracy_score(labels, logits.argmax(1))
    assert state.history[-1]["val_balanced_accuracy"] == pytest.approx(expected, abs=1e-12)


def test_other_classes_are_noticed_before_the_full_network_is_there():
    data = tiny_data()
    state = checkpoint.new_state(TINY, TINY.network(3, 3, 16), CPU)
    assert as_begun(state, data).mean == data.mean
    with pytest.raises(CourseError, match="the classes x, y, z, which aren't those"):
        as_begun(state, replace(data, classes=("x", "y", "z")))


def test_the_documented_lines_load_it(finished):
    _, out = finished
    names: dict = {}
    documented = [line.strip() for line in NEW_NETWORK.format(path=out / "network.pt").splitlines()]
    exec("\n".join(documented), names)
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(names["network"](images), load_network(out / "network.pt")(images))


def test_the_curve_marks_every_phase_and_tells_when_a_round_recovered(finished):
    _, out = finished
    curve = lines(out / "curve.jsonl")
    assert [p["batches"] for p in curve if p["phase"] == "base"] == [4, 8, 12, 16, 20, 24]
    # right after surgery, on the way, at the end
    assert [p["batches"] for p in curve if p["phase"] == "round 2"] == [30, 34, 36]


@pytest.mark.parametrize("stop", [1, 7, 24, 25, 33, 41])
def test_interrupted_and_resumed_is_as_if_it_never_was(finished, tmp_path, stop):
    state, out = finished

    def interrupt(state: State) -> None:
        if state.batches == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(TINY, tmp_path, after_batch=interrupt)
    resumed = run(TINY, tmp_path, resume=True)
    mine, other = resumed.network.state_dict(), state.network.state_dict()
    assert mine.keys() == other.keys() and all(torch.equal(mine[k], other[k]) for k in mine)
    assert timeless(resumed.history) == timeless(state.history)
    assert resumed.curve == state.curve
    saved, expected = (torch.load(d / "network.pt", weights_only=True) for d in (tmp_path, out))
    assert all(
        torch.equal(saved["state_dict"][k], expected["state_dict"][k])
        for k in expected["state_dict"]
    )


def test_right_after_surgery_one_check_gives_both_figures(tmp_path, monkeypatch):
    folds, fold = [], measure.fold
    monkeypatch.setattr(measure, "fold", lambda network: folds.append(1) or fold(network))
    val = make_loader(TINY, tiny_data(), CPU).batches
    seen = []

    def watch(state: State) -> None:
        if state.round and state.batch == 1:  # the checkpoint holds the network before this batch
            saved = checkpoint.load(tmp_path, TINY, CPU)
            whole, first = (accuracy(saved.network, val("val", limit)) for limit in (None, 32))
            point = saved.curve[-1]
            assert point == {"batches": state.batches - 1, "phase": state.phase, "accuracy": first}
            assert saved.val_accuracy_pruned == whole
            seen.append((whole, first))

    run(TINY, tmp_path, after_batch=watch)
    assert len(seen) == 3 and any(whole != first for whole, first in seen)
    watched, ends, surgeries = 24 // 4 + 3 * 2, 4, 3
    assert len(folds) == watched + ends + surgeries


def test_the_full_network_is_written_once(tmp_path):
    written: dict[str, set] = {"full.pt": set(), "network.pt": set()}

    def watch(state: State) -> None:
        for name in written if state.round else ():
            about = (tmp_path / name).stat()
            written[name].add((about.st_mtime_ns, about.st_ino))

    run(TINY, tmp_path, after_batch=watch)
    assert {name: len(times) for name, times in written.items()} == {"full.pt": 1, "network.pt": 3}


@pytest.mark.parametrize("there", ["nothing", "another run's", "half of it"])
def test_resuming_puts_the_full_network_back(finished, tmp_path, there):
    def interrupt(state: State) -> None:
        if state.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(TINY, tmp_path, after_batch=interrupt)
    path = tmp_path / "full.pt"
    whole = path.read_bytes()
    path.unlink()
    if there == "another run's":
        torch.save({"state_dict": {}}, path)
    elif there == "half of it":
        path.write_bytes(whole[: len(whole) // 2])
    run(TINY, tmp_path, resume=True)
    mine, other = (load_network(d / "full.pt").state_dict() for d in (tmp_path, finished[1]))
    assert mine.keys() == other.keys() and all(torch.equal(mine[k], other[k]) for k in mine)


def test_a_round_that_does_not_recover_is_tried_again_and_rolled_back(tmp_path):
    # Four fifths of the filters gone and a rate that can't fix it: the first round has to fail.
    hopeless = replace(TINY, fraction=0.8, finetune_rate=1e-9, tolerance=0.01, finetune_batches=2)
    state = run(hopeless, tmp_path)
    full, failed = state.history
    assert (failed["passed"], failed["attempts"]) == (False, 2)
    assert failed["batches"] == 24 + 2 * 2, "one more fine-tuning was granted"
    assert failed["val_accuracy"] < gate_level(state)
    assert config_of(load_network(tmp_path / "network.pt")).to_dict() == full["network"]
    assert {point["phase"] for point in state.curve} == {"base", "round 1", "round 1, try 2"}
    summary = report.finish(state, tiny_data(), tmp_path, CPU)
    assert summary["rounds_passed"] == 0 and summary["ratios"]["parameters"] == 1


def test_the_last_round_may_fine_tune_longer(tmp_path):
    """The whole cycle is longer, it is counted, and a resumed run ends with the same weights."""
    longer = replace(TINY, final_batches=9)
    rates: dict[str, list[float]] = {}
    expected = set()

    def watch(state: State) -> None:
        rates.setdefault(state.phase, []).append(state.schedule.get_last_lr()[0])
        expected.add(state.expected_batches)

    whole = run(longer, tmp_path / "whole", after_batch=watch)
    assert [line["batches"] for line in whole.history] == [24, 30, 36, 51]
    assert expected == {whole.expected_batches} == {51}
    assert [len(rates[phase]) for phase in ("round 1", "round 2", "round 3")] == [6, 6, 15]
    assert rates["round 3"].index(max(rates["round 3"])) > rates["round 2"].index(
        max(rates["round 2"])
    )

    def interrupt(state: State) -> None:
        if state.batches == 45:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(longer, tmp_path / "cut", after_batch=interrupt)
    mine = run(longer, tmp_path / "cut", resume=True).network.state_dict()
    other = whole.network.state_dict()
    assert all(torch.equal(mine[name], other[name]) for name in other)
    expected.clear()
    run(replace(longer, rounds=0), tmp_path / "alone", after_batch=watch)
    assert expected == {24}


def test_a_longer_last_round_that_fails_is_tried_at_the_same_length(tmp_path):
    hopeless = replace(TINY, fraction=0.8, finetune_rate=1e-9, tolerance=0.01, rounds=1)
    state = run(replace(hopeless, finetune_batches=2, final_batches=3), tmp_path)
    assert state.history[-1]["batches"] == 24 + 2 * (2 + 3)


def test_a_round_that_does_not_recover_takes_the_batches_saved_for_the_last(tmp_path, monkeypatch):
    saving = replace(TINY, final_batches=9, curve_every=3)
    answers = loop.Run.check
    lengths: dict[str, int] = {}
    expected: dict[str, set[int]] = {}

    def check(self: loop.Run, limit: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Right in all phases but the two first tries of the second round."""
        labels, _ = answers(self, limit)
        short = self.state.phase in ("round 2", "round 2, try 2")
        return labels, labels + short

    def watch(state: State) -> None:
        lengths[state.phase] = state.batch
        expected.setdefault(state.phase, set()).add(state.expected_batches)

    monkeypatch.setattr(loop.Run, "check", check)
    state = run(saving, tmp_path / "whole", after_batch=watch)
    assert lengths == {"base": 24, "round 1": 6, "round 2": 6, "round 2, try 2": 6} | {
        "round 2, try 3": 15
    }
    assert expected == {"base": {51}, "round 1": {51}, "round 2": {51}} | {
        "round 2, try 2": {57},
        "round 2, try 3": {57},
    }
    assert state.finished, "that round is the last, though three were asked for"
    assert [(line["passed"], line["attempts"]) for line in state.history] == [
        (True, 1),
        (True, 1),
        (True, 3),
    ]
    kept = config_of(load_network(tmp_path / "whole" / "network.pt")).to_dict()
    assert kept == state.history[2]["network"]

    def interrupt(state: State) -> None:
        if state.phase == "round 2, try 3" and state.batch == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(saving, tmp_path / "cut", after_batch=interrupt)
    mine = run(saving, tmp_path / "cut", resume=True)
    weights = [s.network.state_dict() for s in (mine, state)]
    assert mine.batches == state.batches
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_the_batches_saved_for_the_last_round_may_not_suffice(tmp_path):
    hopeless = replace(TINY, fraction=0.8, finetune_rate=1e-9, tolerance=0.01, final_batches=9)
    full, failed = run(hopeless, tmp_path).history
    assert (failed["passed"], failed["attempts"], failed["batches"]) == (False, 3, 24 + 6 + 6 + 15)
    assert config_of(load_network(tmp_path / "network.pt")).to_dict() == full["network"]


def test_without_the_gate_it_goes_on(tmp_path):
    open_gate = replace(TINY, fraction=0.8, finetune_rate=1e-9, gate=False, rounds=2)
    assert [line["passed"] for line in run(open_gate, tmp_path).history] == [True] * 3


def test_no_rounds_trains_the_full_network_alone(tmp_path):
    state = run(replace(TINY, rounds=0), tmp_path)
    assert len(state.history) == 1 and state.finished


def test_every_criterion_and_scope_goes_through(tmp_path):
    from course_lib.pruning import CRITERIA

    short = replace(TINY, batches=2, finetune_batches=1, rounds=1, gate=False)
    for criterion in CRITERIA:
        for scope in ("layer", "network"):
            out = tmp_path / f"{criterion}-{scope}"
            state = run(replace(short, criterion=criterion, scope=scope), out)
            assert state.history[1]["filters"] < state.history[0]["filters"]


@pytest.mark.parametrize(("cost", "normalise"), [("macs", False), ("macs", True), ("none", False)])
def test_filters_can_go_by_what_they_cost(tmp_path, cost, normalise):
    options = {"scope": "network", "criterion": "l2", "cost": cost, "normalise": normalise}
    state = run(replace(TINY, rounds=1, cap=0.9, **options), tmp_path)
    full = load_network(tmp_path / "full.pt")
    groups = find_groups(full, torch.zeros(1, 3, 16, 16))
    macs = measure.layer_macs(full, (3, 16, 16))
    scores = {}
    for name, score in l2(full, groups).items():
        if normalise:
            score = score / score.mean()
        if cost == "macs":
            group = groups[name]
            layers = [*group.producers, *(reader for reader, _ in group.readers)]
            score = score * group.size / sum(macs[layer] for layer in layers)
        scores[name] = score
    keep = select(scores, fraction=0.2, scope="network", cap=0.9, floor=2, normalise=False)
    widths = {name: len(kept) for name, kept in keep.items()}
    assert widths == state.history[1]["widths"] != state.history[0]["widths"]


def test_fine_tuning_can_follow_the_full_network(finished, tmp_path, monkeypatch):
    taught, plain = [], loop.train

    def spy(*parts, teacher=None, distill=0.9, **options):
        taught.append((teacher, distill))
        return plain(*parts, teacher=teacher, distill=distill, **options)

    monkeypatch.setattr(loop, "train", spy)
    config = replace(TINY, distill=0.75)
    state = run(config, tmp_path / "whole")
    assert [share for _, share in taught] == [0.75] * 4 and taught[0][0] is None
    full = load_network(tmp_path / "whole" / "full.pt")
    images = torch.randn(8, 3, 16, 16)
    for teacher, _ in taught[1:]:
        torch.testing.assert_close(teacher(images), full(images), rtol=1e-4, atol=1e-5)
    untaught = finished[0].network.state_dict()
    mine = state.network.state_dict()
    assert any(not torch.equal(mine[name], untaught[name]) for name in mine)

    def interrupt(state: State) -> None:
        if state.batches == 33:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "killed", after_batch=interrupt)
    resumed = run(config, tmp_path / "killed", resume=True).network.state_dict()
    assert all(torch.equal(mine[name], resumed[name]) for name in mine)


def test_a_criterion_sees_the_same_training_images_every_round(tmp_path, monkeypatch):
    from course_lib.pruning import CRITERIA

    seen, l1 = [], CRITERIA["l1"]

    def spy(network, groups, batches=None, *, generator=None):
        seen.append(torch.cat([images for images, _ in batches]))
        return l1(network, groups)

    monkeypatch.setitem(CRITERIA, "l1", spy)
    run(replace(TINY, batches=2, finetune_batches=1, rounds=2, criterion_images=20), tmp_path)
    expected = torch.cat([images for images, _ in make_loader(TINY, tiny_data(), CPU).sample(20)])
    assert len(seen) == 2 and all(torch.equal(images, expected) for images in seen)


def test_momentum_crosses_surgery(tmp_path):
    seen = {}

    def watch(state: State) -> None:
        if state.round == 1 and state.batch == 1:
            seen["buffers"] = len(state.optimizer.state)
            mine = {id(p) for p in state.network.parameters()}
            held = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
            seen["right"] = mine == held

    run(TINY, tmp_path, after_batch=watch)
    assert seen == {
        "buffers": len(list(ResNet(TINY.network(3, 3, 16)).parameters())),
        "right": True,
    }


def test_a_loss_that_is_no_number_is_named(tmp_path):
    with pytest.raises(CourseError, match="lower --rate"):
        run(replace(TINY, rate=1e30), tmp_path)


def test_the_report(finished, monkeypatch):
    state, out = finished
    loaders = []

    def counted(*arguments):
        loaders.append(make_loader(*arguments))
        return loaders[-1]

    monkeypatch.setattr(report, "make_loader", counted)
    summary = report.finish(state, tiny_data(), out, CPU)
    assert len(loaders) == 1, "one serves both networks"
    assert summary == json.loads((out / "summary.json").read_text())
    for which in ("full", "final"):
        figures = summary[which]
        assert {"parameters", "bytes", "macs", "images_per_second", "test_accuracy"} <= set(figures)
    network = load_network(out / "network.pt")
    assert summary["final"]["parameters"] == measure.count_parameters(network)
    tested = accuracy(network, make_loader(TINY, tiny_data(), CPU).batches("test"))
    assert summary["final"]["test_accuracy"] == tested
    ratio = summary["final"]["parameters"] / summary["full"]["parameters"]
    assert summary["ratios"]["parameters"] == pytest.approx(ratio)
    assert all(line["images_per_second"] > 0 for line in lines(out / "history.jsonl"))
    for figure in ("accuracy.png", "size.png", "throughput.png"):
        assert (out / figure).read_bytes().startswith(b"\x89PNG")
    assert "test accuracy" in report.describe(summary)
    stamp = (out / "size.png").stat().st_mtime_ns
    assert report.finish(state, tiny_data(), out, CPU) == summary
    assert (out / "size.png").stat().st_mtime_ns == stamp, "a finished run isn't measured again"


def test_a_run_can_begin_with_a_network_that_is_trained(finished, tmp_path):
    state, out = finished
    network = load_network(out / "full.pt")
    checkpoint.save(checkpoint.trained_state(TINY, network, CPU), tmp_path)
    pruned = run(TINY, tmp_path, resume=True)
    # Speed is measured afterwards, by a report: maybe by another test of this finished run.
    first, same = ({**r.history[0], "images_per_second": None} for r in (pruned, state))
    assert timeless([first]) == timeless([same])
    for name, value in network.state_dict().items():
        assert torch.equal(pruned.full["state_dict"][name], value)
    # Without the momentum that training leaves behind, the rounds end near by but not equal.
    assert [r["widths"] for r in pruned.history] == [r["widths"] for r in state.history]
    assert [r["batches"] for r in pruned.history] == [r["batches"] for r in state.history]


def test_a_line_of_history_in_words():
    full = {
        "round": 0,
        "filters": 80,
        "parameters": 200,
        "val_accuracy_pruned": None,
        "val_accuracy": 0.9,
        "passed": True,
    }
    line = full | {
        "round": 2,
        "filters": 40,
        "parameters": 50,
        "val_accuracy_pruned": 0.25,
        "val_accuracy": 0.875,
        "passed": False,
    }
    assert (
        describe(full, full)
        == "round  0     80 filters  100.0% of the parameters  validation 0.900"
    )
    assert describe(line, full) == (
        "round  2     40 filters   25.0% of the parameters  validation 0.875"
        " (right after surgery 0.250)  did not recover: rolled back"
    )
