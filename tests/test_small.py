"""The small trained network of data/small/ is what its card says, and loads as promised."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from course_lib import measure, small, vehicles
from course_lib.config import Config
from course_lib.data import Data
from course_lib.errors import CourseError
from course_lib.pruning import find_groups
from course_lib.resnet import ResNet, config_of, resnet_config
from course_lib.training import Loader, predict

ROOT = Path(__file__).resolve().parent.parent
CARD = small.small_card()
IMAGES = CARD["networks"]["full"]["first_test_images"]
# Other processors and versions round otherwise, which decides the answer where two classes are
# about equal.
ROUNDING = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Test images drawn for this test: a cache that is there already could hide what is wrong."""
    return small.small_data(test=IMAGES, cache=tmp_path_factory.mktemp("cache"), progress=False)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("small_network")


def saved(name: str) -> dict:
    return torch.load(small.FOLDER / f"{name}.pt", weights_only=True)


# ---- the accuracies


@pytest.mark.parametrize("name", small.NAMES)
def test_recorded_accuracy_is_true(name: str, data: Data) -> None:
    recorded = CARD["networks"][name]
    batches = Loader(data, torch.device("cpu")).batches("test")
    logits, labels = predict(small.load_small(name), batches)
    assert len(labels) == IMAGES >= 1_000
    right = int((logits.argmax(1) == labels).sum())
    assert abs(right - recorded["right_of_first"]) <= ROUNDING
    # On all test images it is about what it is on these: 3 standard errors of a share.
    share = recorded["test_accuracy"]
    assert abs(right / IMAGES - share) <= 3 * (share * (1 - share) / IMAGES) ** 0.5


def test_the_card_accounts_for_what_pruning_and_half_precision_cost() -> None:
    full, pruned = CARD["networks"]["full"], CARD["networks"]["pruned"]
    change = pruned["test_accuracy"] - full["test_accuracy"]
    assert CARD["test_accuracy_change"] == pytest.approx(change)
    assert full["test_accuracy"] >= 0.94 and change >= -0.01
    for network in (full, pruned):
        assert abs(network["test_accuracy"] - network["test_accuracy_in_float32"]) <= 0.002
    assert CARD["control"]["batches"] == pruned["batches"] > full["batches"]


# ---- sizes


@pytest.mark.parametrize("name", small.NAMES)
def test_sizes_are_the_recorded_ones(name: str) -> None:
    recorded, network = CARD["networks"][name], small.load_small(name)
    size = CARD["data"]["image_size"]
    groups = find_groups(network, torch.zeros(1, 3, size, size))
    assert measure.count_parameters(network) == recorded["parameters"]
    assert measure.count_macs(network, (3, size, size)) == recorded["macs"]
    assert sum(group.size for group in groups.values()) == recorded["filters"]
    file_bytes = (small.FOLDER / recorded["file"]).stat().st_size
    assert file_bytes == recorded["file_bytes"]
    # Half precision: two bytes a parameter, and what names, statistics and the archive take.
    assert 2 * recorded["parameters"] < file_bytes < 2 * recorded["parameters"] + 150_000


def test_the_pruned_network_is_narrower_everywhere() -> None:
    size = CARD["data"]["image_size"]
    widths = {}
    for name in small.NAMES:
        groups = find_groups(small.load_small(name), torch.zeros(1, 3, size, size))
        widths[name] = {key: group.size for key, group in groups.items()}
    assert widths["full"].keys() == widths["pruned"].keys()
    assert all(widths["pruned"][key] < width for key, width in widths["full"].items())
    full, pruned = CARD["networks"]["full"], CARD["networks"]["pruned"]
    for key in ("file_bytes", "filters", "parameters", "macs"):
        assert CARD["ratios"][key] == pytest.approx(pruned[key] / full[key])
    assert CARD["ratios"]["parameters"] < 0.21


def test_the_full_network_is_a_quarter_width_resnet18_with_projections_everywhere() -> None:
    full = config_of(small.load_small("full"))
    assert full == resnet_config(18, 8, base_width=16, projection="all")
    assert {block.projection for stage in full.stages for block in stage} == {"norm"}


# ---- the files


@pytest.mark.parametrize("name", small.NAMES)
def test_a_file_holds_half_precision_and_what_its_images_need(name: str) -> None:
    held = saved(name)
    kinds = {value.dtype for value in held["state_dict"].values()}
    assert kinds == {torch.float16, torch.int64}  # int64: batch norm's count of batches
    assert held["classes"] == CARD["data"]["classes"] == list(vehicles.CLASSES)
    for key in ("mean", "std", "image_size"):
        assert held[key] == CARD["data"][key]


@pytest.mark.parametrize("name", small.NAMES)
def test_loads_as_promised(name: str) -> None:
    network, held = small.load_small(name), saved(name)
    assert isinstance(network, ResNet) and not network.training
    for key, value in network.state_dict().items():
        kept = held["state_dict"][key]
        assert value.dtype == (torch.float32 if kept.is_floating_point() else torch.int64)
        assert torch.equal(value, kept.to(value.dtype)), key
    assert all(not module.training for module in network.modules())


def test_the_card_says_where_the_files_come_from(script: ModuleType) -> None:
    assert CARD["source"]["command"] == small.COMMAND
    assert (ROOT / small.COMMAND.split()[-1]).is_file()
    assert len(CARD["source"]["commit"]) == 40 and CARD["source"]["date"]
    assert {"processor", "system", "threads", "python", "torch"} <= CARD["machine"].keys()
    assert CARD["data"]["version"] == vehicles.VERSION, "drawings have changed: make it again"
    config = Config(**CARD["config"])
    assert config.seed == CARD["data"]["seed"]
    words = iter((*script.TRAINING, *script.PRUNING))
    options = dict(zip(words, words, strict=True))
    counts = ("--base-width", "--batches", "--rounds", "--finetune-batches", "--final-batches")
    for option in counts:
        assert getattr(config, option[2:].replace("-", "_")) == int(options[option]), option
    batches = config.batches + CARD["rounds_passed"] * config.finetune_batches
    assert CARD["networks"]["full"]["batches"] == config.batches
    assert CARD["networks"]["pruned"]["batches"] >= batches


# ---- the library


def test_data_is_standardised_as_in_training(data: Data) -> None:
    assert list(data.mean) == CARD["data"]["mean"] and list(data.std) == CARD["data"]["std"]
    image, label = vehicles.draw(CARD["data"]["seed"], "test", 7, size=CARD["data"]["image_size"])
    assert np.array_equal(data.test.images[7], image) and data.test.labels[7] == label
    assert data.classes == vehicles.CLASSES


def test_half_precision_is_within_its_rounding() -> None:
    torch.manual_seed(0)
    network = ResNet(resnet_config(18, 3, base_width=4))
    halved, whole = small.halved(network, classes=["a", "b", "c"]), network.state_dict()
    assert halved["classes"] == ["a", "b", "c"]
    for key, value in halved["state_dict"].items():
        if whole[key].is_floating_point():
            assert value.dtype == torch.float16
            off = (value.float() - whole[key]).abs()
            assert (off <= whole[key].abs() / 2048 + 2**-25).all(), key
        else:
            assert torch.equal(value, whole[key])


def test_half_precision_refuses_what_it_cannot_hold() -> None:
    network = ResNet(resnet_config(18, 3, base_width=4))
    with torch.no_grad():
        network.layer2[0].bn1.running_var[1] = 1e5
    with pytest.raises(CourseError, match=r"^layer2\.0\.bn1\.running_var has values above 65,504"):
        small.halved(network)


def test_another_name_is_refused_in_a_sentence() -> None:
    with pytest.raises(CourseError, match=r"^There is no small network 'tiny': choose one of full"):
        small.load_small("tiny")


@pytest.mark.parametrize("name", small.NAMES)
def test_a_missing_or_damaged_network_names_the_command(name: str, tmp_path: Path) -> None:
    sentence = rf"{name}\.pt is missing or damaged: .*`{small.COMMAND}` makes it again\.$"
    with pytest.raises(CourseError, match=sentence):
        small.load_small(name, tmp_path)
    shutil.copy(small.FOLDER / f"{name}.pt", tmp_path)
    small.load_small(name, tmp_path)
    whole = (tmp_path / f"{name}.pt").read_bytes()
    (tmp_path / f"{name}.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CourseError, match=sentence):
        small.load_small(name, tmp_path)


def test_a_missing_or_damaged_card_names_the_command(tmp_path: Path) -> None:
    sentence = rf"card\.json is missing or damaged: .*`{small.COMMAND}` makes it again\.$"
    with pytest.raises(CourseError, match=sentence):
        small.small_card(tmp_path)
    (tmp_path / "card.json").write_text('{"data": ')
    with pytest.raises(CourseError, match=sentence):
        small.small_data(folder=tmp_path)


# ---- the command


def test_the_command_writes_what_a_run_left(script: ModuleType, tmp_path: Path, data: Data) -> None:
    """From a run's files to data/small/'s, with an untrained network for the run's."""
    torch.manual_seed(0)
    network = ResNet(resnet_config(18, 8, base_width=4)).eval()
    about = {"classes": list(data.classes), "mean": data.mean, "std": data.std, "image_size": 48}
    out = tmp_path / "run"
    out.mkdir()
    for file in script.RUN_FILES.values():
        torch.save(small.saved_form(network, **about, more="is left out"), out / file)
    script.write_networks(out, tmp_path / "small")
    assert sorted(p.name for p in (tmp_path / "small").iterdir()) == ["full.pt", "pruned.pt"]
    first = script.measured("full", tmp_path / "small", data)
    assert first["parameters"] == measure.count_parameters(network)
    # Whatever an untrained network answers, the counts of the two parts are its own.
    halved = small.load_small("full", tmp_path / "small")
    logits, labels = predict(halved, Loader(data, torch.device("cpu")).batches("test"))
    assert first["right_of_first"] == int((logits.argmax(1) == labels)[: script.FIRST].sum())
    assert first["test_accuracy"] == first["right_of_first"] / IMAGES
