"""A run that begins with a trained network: a run's own, or torchvision's weights."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from command_line import QUICK, course, refused
from image_folders import fill
from tiny import TINY, tiny_data

from course_lib.data import Split
from course_lib.errors import CourseError
from course_lib.iterate import iterate, make_loader
from course_lib.pretrained import IMAGENET_MEAN, IMAGENET_STD, begin_with, read
from course_lib.resnet import ResNet, load_network, resnet_config, saved_form
from course_lib.training import accuracy, place

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run, whose folder has full.pt and network.pt."""
    out = tmp_path_factory.mktemp("trained")
    return iterate(TINY, tiny_data(), out, CPU, progress=False), out


def begun(config, out, data=None, **options):
    """A run that begins as config.start says."""
    out.mkdir(exist_ok=True)
    network, data = begin_with(config, data or tiny_data())
    return iterate(config, data, out, CPU, network=network, progress=False, **options)


def weights_file(folder, classes: int = 3, channels: int = 3):
    """A small network and the file of its weights under torchvision's names."""
    torch.manual_seed(1)
    network = ResNet(
        resnet_config(18, classes, base_width=4, channels=channels, projection="needed")
    )
    named = {n.replace("shortcut", "downsample"): v for n, v in network.state_dict().items()}
    torch.save(named, folder / "weights.pth")
    return network.eval(), folder / "weights.pth"


def test_a_runs_network_is_pruned_as_it_is(trained, tmp_path):
    state, out = trained
    config = replace(TINY, start=str(out / "full.pt"), batches=0)
    again = begun(config, tmp_path / "again")
    first = again.history[0]
    assert first["val_accuracy"] == state.history[0]["val_accuracy"] > 0.8
    assert (first["batches"], first["parameters"]) == (0, state.history[0]["parameters"])
    same = load_network(tmp_path / "again" / "full.pt").state_dict()
    for name, value in load_network(out / "full.pt").state_dict().items():
        assert torch.equal(value, same[name])
    assert [line["parameters"] for line in again.history] == [
        line["parameters"] for line in state.history
    ]


def test_a_pruned_network_is_trained_further_and_pruned_on(trained, tmp_path):
    state, out = trained
    config = replace(TINY, start=str(out / "network.pt"), rounds=1)
    again = begun(config, tmp_path / "again")
    start, end = state.history[-1]["parameters"], again.history[-1]["parameters"]
    assert again.history[0]["parameters"] == start > end
    assert again.history[0]["batches"] == TINY.batches


def test_the_network_given_stays_as_it_was(trained, tmp_path):
    network = load_network(trained[1] / "full.pt")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    iterate(replace(TINY, rounds=1), tiny_data(), tmp_path, CPU, network=network, progress=False)
    assert all(torch.equal(value, before[n]) for n, value in network.state_dict().items())


def test_images_are_standardised_as_they_were_for_the_network(trained, tmp_path):
    data = replace(tiny_data(), mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    _, changed = begin_with(replace(TINY, start=str(trained[1] / "full.pt")), data)
    assert (changed.mean, changed.std) == (tiny_data().mean, tiny_data().std)
    network, path = weights_file(tmp_path)
    _, changed = begin_with(replace(TINY, start=str(path)), data)
    assert (changed.mean, changed.std) == (IMAGENET_MEAN, IMAGENET_STD)
    torch.save(saved_form(network), path)
    _, changed = begin_with(replace(TINY, start=str(path)), data)
    assert (changed.mean, changed.std) == (data.mean, data.std)


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_torchvisions_weights_compute_torchvisions_function(depth, tmp_path):
    torch.manual_seed(depth)
    theirs = torchvision.models.get_model(f"resnet{depth}", num_classes=3)
    for module in theirs.modules():  # statistics that matter, as after training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    network, _ = begin_with(replace(TINY, start=str(tmp_path / "weights.pth")), tiny_data())
    assert network is not None
    assert all(len(list(b.shortcut)) for s in (network.layer1, network.layer4) for b in s)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected, found = theirs.eval()(images), network.eval()(images)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_other_classes_get_a_new_last_layer_and_it_is_said(trained, tmp_path):
    network, path = weights_file(tmp_path, classes=5)
    config = replace(TINY, start=str(path), rounds=1)
    first, data = begin_with(config, tiny_data())
    assert first.fc.out_features == 3 and "last layer begins anew" in data.notes[-1]
    assert torch.equal(first.conv1.weight, network.conv1.weight)
    other, _ = begin_with(replace(config, seed=1), tiny_data())
    again, _ = begin_with(config, tiny_data())
    assert torch.equal(first.fc.weight, again.fc.weight)
    assert not torch.equal(first.fc.weight, other.fc.weight)
    # As many classes, but others.
    named = replace(tiny_data(), classes=("rot", "grün", "blau"))
    start = replace(config, start=str(trained[1] / "full.pt"))
    changed, data = begin_with(start, named)
    kept, same = begin_with(start, tiny_data())
    assert "last layer begins anew" in data.notes[-1] and same.notes == tiny_data().notes
    assert not torch.equal(changed.fc.weight, kept.fc.weight)
    with pytest.raises(CourseError, match="last layer must be trained: give --batches"):
        begin_with(replace(start, batches=0), named)


def test_projections_are_as_the_config_says(tmp_path):
    network, path = weights_file(tmp_path)
    config = replace(TINY, start=str(path))
    with_all, data = begin_with(config, tiny_data())
    needed, _ = begin_with(replace(config, projection="needed"), tiny_data())
    assert len(with_all.state_dict()) > len(needed.state_dict()) == len(network.state_dict())
    loader = make_loader(config, data, CPU)
    reached = [accuracy(place(n, CPU), loader.batches("val")) for n in (network, needed, with_all)]
    assert reached[0] == reached[1] == reached[2]


def test_stopped_and_resumed_it_ends_as_undisturbed(trained, tmp_path):
    config = replace(TINY, start=str(trained[1] / "full.pt"), batches=0, rounds=2)
    whole = begun(config, tmp_path / "whole")

    def stop(state):
        if state.batches == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begun(config, tmp_path / "parts", after_batch=stop)
    # Resumed without the network, and with images that aren't standardised as it is used to.
    data = replace(tiny_data(), mean=(0.1, 0.2, 0.3))
    parts = iterate(config, data, tmp_path / "parts", CPU, resume=True, progress=False)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, parts.network.state_dict()[name])


def test_the_command_line_prunes_a_network_and_refuses_what_does_not_fit(tmp_path, capsys):
    start = ["run", *QUICK, "--cache", tmp_path / "cache"]
    assert course(capsys, *start, "--out", tmp_path / "a")[0] == 0
    full = tmp_path / "a" / "full.pt"
    pruned = [*start, "--out", tmp_path / "b", "--start", full, "--batches", "0"]
    assert course(capsys, *pruned)[0] == 0
    a, b = (json.loads((tmp_path / f / "summary.json").read_text()) for f in "ab")
    assert a["full"]["test_accuracy"] == b["full"]["test_accuracy"]
    assert b["config"]["start"] == str(full)
    # What the run needs of the file is in its checkpoint: the file may go.
    full.unlink()
    resume = ["run", "--out", tmp_path / "b", "--cache", tmp_path / "cache", "--resume"]
    assert course(capsys, *resume)[0] == 0
    again = ["run", "--out", tmp_path / "c", *pruned[1:]]
    assert "put it there" in refused(capsys, "can't be read (No such file", *again)


def test_a_start_whose_images_were_divided_otherwise_is_noted(tmp_path, capsys):
    photos = fill(tmp_path / "photos", {"a": 99, "b": 99})
    options = [*QUICK, "--data", photos, "--cache", tmp_path / "cache"]
    assert course(capsys, "run", *options, "--out", tmp_path / "a")[0] == 0
    start = ["--start", tmp_path / "a" / "full.pt"]
    words = "its images were divided otherwise, so it may have learnt some that now validate"
    for out, seed, noted in (("same", "0", False), ("other", "1", True)):
        run = ["run", *options, *start, "--seed", seed, "--out", tmp_path / out]
        assert course(capsys, *run)[0] == 0
        notes = json.loads((tmp_path / out / "summary.json").read_text())["data"]["notes"]
        assert any(words in note for note in notes) == noted


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    torch.save(torch.nn.Linear(2, 2), folder / "module.pt")
    torch.save({"conv1.weight": torch.zeros(4, 3, 7, 7)}, folder / "part.pt")
    torch.save({"config": {}, "state_dict": {}}, folder / "foreign.pt")
    torch.save([1, 2], folder / "list.pt")
    torch.save({"conv1.weight": 1, "fc.weight": 2}, folder / "numbers.pt")
    (folder / "text.pt").write_text("hello")
    (folder / "empty.pt").touch()
    _, path = weights_file(folder)
    (folder / "half.pt").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    wide = torchvision.models.get_model("resnext50_32x4d", num_classes=3)
    torch.save(wide.state_dict(), folder / "resnext.pt")
    return folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent.pt", "can't be read (No such file or directory): put it there or name another"),
        (".", "can't be read ("),
        ("module.pt", "save the network's state_dict() and name that file"),
        ("text.pt", "can't be read ("),
        ("empty.pt", "can't be read ("),
        ("half.pt", "can't be read ("),
        ("part.pt", "is neither a network that a run wrote nor"),
        ("foreign.pt", "is neither a network that a run wrote nor"),
        ("list.pt", "is neither a network that a run wrote nor"),
        ("numbers.pt", "is neither a network that a run wrote nor"),
        ("resnext.pt", "is neither a network that a run wrote nor"),
    ],
)
def test_another_file_is_refused_before_anything_is_written(
    tmp_path, capsys, bad_files, name, words
):
    out = tmp_path / "out"
    error = refused(capsys, words, "run", *QUICK, "--out", out, "--start", bad_files / name)
    assert name in error and not out.exists()


def test_grey_images_need_a_network_of_one_channel(tmp_path):
    _, path = weights_file(tmp_path, channels=1)
    with pytest.raises(CourseError, match="images of tiny have 3 channels, not the 1 of"):
        begin_with(replace(TINY, start=str(path)), tiny_data())
    assert read(path).mean is None, "ImageNet's statistics are of three channels"
    grey = [Split(s.images[..., :1], s.labels) for s in (tiny_data().train, tiny_data().val)]
    data = replace(tiny_data(), train=grey[0], val=grey[1], test=grey[1], mean=(0.4,), std=(0.2,))
    network, changed = begin_with(replace(TINY, start=str(path)), data)
    assert changed.mean == (0.4,) and network.conv1.in_channels == 1
    assert np.array_equal(changed.train.images, data.train.images)


def test_no_batches_need_a_start(tmp_path, capsys):
    refused(
        capsys,
        "--batches can't be 0 without --start",
        "run",
        *QUICK,
        "--out",
        tmp_path / "x",
        "--batches",
        "0",
    )
