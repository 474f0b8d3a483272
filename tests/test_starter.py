"""The copy-paste starter: the library's pruning, without the library."""

from __future__ import annotations

import ast
import importlib.util
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_decode import ODD_IMAGES
from torch import nn
from torchvision import models

from course_lib import measure
from course_lib.images.decode import UndecodableImage, decode
from course_lib.pruning import find_groups, l1, prune, select

SCRIPT = Path(__file__).resolve().parent.parent / "starter" / "prune_resnet.py"
COLOURS = {"blue": (20, 40, 200), "red": (200, 30, 20)}


@pytest.fixture(scope="module")
def starter() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prune_resnet", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trained(arch: str) -> models.ResNet:
    """A network whose batch norms are as after training: none is the identity."""
    torch.manual_seed(0)
    network = models.get_model(arch, num_classes=5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return network.eval()


def folder(root: Path, parts: tuple[str, ...] = ("train", "val"), images: int = 6) -> Path:
    for part in parts:
        for name, colour in COLOURS.items():
            (root / part / name).mkdir(parents=True)
            for i in range(images):
                Image.new("RGB", (36, 32), (*colour[:2], colour[2] + i)).save(
                    root / part / name / f"{i}.png"
                )
    return root


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50"])
def test_it_finds_the_librarys_groups(arch: str, starter: ModuleType) -> None:
    network = models.get_model(arch, num_classes=5)
    found = find_groups(network, torch.zeros(1, 3, 64, 64)).values()
    expected = {
        (frozenset(g.producers), frozenset(g.norms), frozenset(name for name, _ in g.readers))
        for g in found
    }
    given = [tuple(map(frozenset, group)) for group in starter.find_groups(network)]
    assert len(given) == len(expected)
    assert set(given) == expected


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_it_prunes_as_the_library_does(arch: str, starter: ModuleType) -> None:
    network = trained(arch)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images = torch.randn(2, 3, 64, 64)
    groups = find_groups(network, images)
    scores = l1(network, groups)
    keep = select(scores, fraction=0.3)
    theirs = prune(network, groups, keep)

    ours = starter.find_groups(network)
    counts = []
    for group in ours:
        name = next(name for name in groups if name in group.makers)
        torch.testing.assert_close(starter.score(network, group), scores[name], rtol=1e-5, atol=0)
        counts.append(len(keep[name]))
    mine = starter.prune(network, counts)

    state = theirs.state_dict()
    assert mine.state_dict().keys() == state.keys()
    for name, tensor in mine.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert str(mine) == str(theirs)  # the widths that the layers themselves tell
    with torch.no_grad():
        torch.testing.assert_close(mine(images), theirs(images), rtol=1e-5, atol=1e-5)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), "the wide network is left as it was"


def test_it_works_alone_from_folder_to_file(tmp_path: Path, starter: ModuleType) -> None:
    root = folder(tmp_path / "photos", ("train", "val", "test"))
    (root / "train" / "red" / "notes.txt").write_text("no picture", encoding="utf-8")
    options = "--random --size 32 --epochs 2 --rounds 2 --fraction 0.5 --finetune-epochs 1"
    options += " --batch-size 4 --tolerance 1"
    # Isolated mode hides PYTHONPATH and the folder; the copy must find nothing of ours.
    copied = tmp_path / "copied.py"
    hidden = 'import sys; sys.modules["course_lib"] = None\n'
    text = SCRIPT.read_text(encoding="utf-8").split('"""', 2)
    copied.write_text(f'"""{text[1]}"""\n{hidden}{text[2]}', encoding="utf-8")
    command = [sys.executable, "-I", str(copied), "photos", "--out", "small.pt", *options.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Round 2: " in done.stdout

    network, saved = starter.load(tmp_path / "small.pt")
    parameters, macs = measure.count_parameters(network), measure.count_macs(network, (3, 32, 32))
    reported = re.search(r"The pruned network: test \S+, (\S+) parameters, (\S+) MACs", done.stdout)
    assert reported and reported.groups() == (f"{parameters:,}", f"{macs:,}")
    assert saved["classes"] == ["blue", "red"]
    assert saved["size"] == 32
    assert network.conv1.out_channels == 16  # 64 · ½ · ½
    assert network.layer4[1].conv1.in_channels == 128
    assert not network.training
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


def test_it_imports_torch_and_torchvision_alone() -> None:
    """And Pillow, which torchvision brings."""
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    names = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names |= {str(n.module).split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert names - set(sys.stdlib_module_names) == {"torch", "torchvision", "PIL"}


def test_a_mistake_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True)
    assert done.returncode == 2
    sentence = f"prune_resnet: {tmp_path} must hold train/ and val/, a folder of images per class"
    assert done.stderr == f"{sentence} in each.\n"


def said(starter: ModuleType, arguments: list[str], monkeypatch: Any, capsys: Any) -> str:
    """How a run ends that goes wrong: argparse's own words, or the sentence that is printed."""
    monkeypatch.setattr(sys, "argv", ["prune_resnet.py", *arguments])
    with pytest.raises((SystemExit, ValueError, OSError)) as ended:
        starter.main()
    return capsys.readouterr().err or str(ended.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere must hold train/ and val/"),
        (["photos/train"], "train must hold train/ and val/"),
        (["photos", "--out", "no/such/place.pt"], "such isn't a folder: make it, or give another"),
        (["photos", "--out", "photos"], "photos is there already: move it, or give another --out."),
        (["photos", "--out", "kept.pt"], "kept.pt is there already: move it"),
        (["photos", "--out", "half.pt"], "half.pt.part is there already: move it"),
        (["photos", "--fraction", "1.5"], "--fraction goes from 0.001 to 0.99"),
        (["photos", "--batch-size", "1"], "--batch-size goes from 2 to 4096"),
        (["photos", "--tolerance", "nan"], "--tolerance goes from 0 to 1"),
        (["photos", "--rate", "nan"], "--rate goes from 1e-06 to 1e+06"),
        (["photos", "--epochs", "-1"], "--epochs goes from 0 to 9999"),
        (["photos", "--rounds", "-1"], "--rounds goes from 0 to 999"),
        (["photos", "--finetune-epochs", "-1"], "--finetune-epochs goes from 0 to 9999"),
        (["photos", "--size", "1"], "--size goes from 32 to 1024"),
        (["photos", "--size", "100000"], "--size goes from 32 to 1024"),
        (["photos", "--size", "big"], "invalid int value"),
        (["photos", "--random", "--rate", "1e6"], "with a lower --rate"),
        (["unlike", "--random"], "must have the same classes"),
        (["empty", "--random"], "Found no valid file for the classes red"),
        (["broken", "--random"], "0.png can't be read"),
        (["truncated", "--random"], "0.png can't be read"),
    ],
)
def test_what_a_user_can_mend_is_said_in_a_sentence(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: Any,
    capsys: Any,
    starter: ModuleType,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", images=2)
    folder(tmp_path / "unlike", images=1)
    (tmp_path / "unlike" / "val" / "red").rename(tmp_path / "unlike" / "val" / "green")
    folder(tmp_path / "empty", images=1)
    (tmp_path / "empty" / "val" / "red" / "0.png").unlink()
    folder(tmp_path / "broken", images=1)
    (tmp_path / "broken" / "val" / "red" / "0.png").write_bytes(b"no picture")
    folder(tmp_path / "truncated", images=1)
    picture = tmp_path / "truncated" / "val" / "red" / "0.png"
    picture.write_bytes(picture.read_bytes()[:-30])
    for name in ("kept.pt", "half.pt.part"):
        (tmp_path / name).write_text("of another day", encoding="utf-8")
    small = ["--size", "32", "--epochs", "3"]
    assert words in said(starter, [*small, *arguments], monkeypatch, capsys)
    for name in ("kept.pt", "half.pt.part"):
        assert (tmp_path / name).read_text(encoding="utf-8") == "of another day"


def test_photographs_stand_upright(tmp_path: Path, starter: ModuleType) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    Image.new("CMYK", (40, 20)).save(tmp_path / "photo.jpg", exif=exif)
    picture = starter.read_image(str(tmp_path / "photo.jpg"))
    assert (picture.size, picture.mode) == ((20, 40), "RGB")


ODD = ["16 bits, just below 1", "16 bits, 1", "16 bits, middle", "16 bits, TIFF"]
ODD += ["16 bits, big-endian TIFF", "16 bits, PGM", "palette, transparent", "transparent red"]
ODD += ["half transparent black", "grey with alpha", "one colour transparent", "CMYK"]


@pytest.mark.parametrize("name", ODD)
def test_odd_pictures_look_as_the_library_decodes_them(
    name: str, tmp_path: Path, starter: ModuleType
) -> None:
    path = tmp_path / "picture.png"  # whatever it is: the content counts
    path.write_bytes(ODD_IMAGES[name][0])
    picture = starter.read_image(str(path))
    assert picture.mode == "RGB"
    np.testing.assert_array_equal(np.array(picture), decode(path, picture.height))


def test_every_16_bit_grey_is_the_librarys(tmp_path: Path, starter: ModuleType) -> None:
    levels = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(levels).save(tmp_path / "ramp.tif")
    picture = starter.read_image(str(tmp_path / "ramp.tif"))
    np.testing.assert_array_equal(np.array(picture), decode(tmp_path / "ramp.tif", 256))
    Image.fromarray(levels).save(tmp_path / "ramp.png", transparency=33792)
    picture_too = np.array(starter.read_image(str(tmp_path / "ramp.png")))
    np.testing.assert_array_equal(picture_too, np.array(picture))
    # 9000 of 65535 is dark; clipped to 255 it would be white.
    assert picture.getpixel((9000 % 256, 9000 // 256)) == (35, 35, 35)


@pytest.mark.parametrize("white", [np.int32(2**16), np.int32(-1), np.float32(1)])
def test_numbers_of_unknown_range_are_refused_as_by_the_library(
    tmp_path: Path, starter: ModuleType, white: np.generic
) -> None:
    path = tmp_path / "grey.tif"
    Image.fromarray(np.full((8, 8), white)).save(path)
    with pytest.raises(ValueError, match=r"grey.tif can't be read .*: take it out"):
        starter.read_image(str(path))
    with pytest.raises(UndecodableImage, match="unknown range"):
        decode(path, 8)


def test_what_was_reached_before_an_interruption_is_kept(
    tmp_path: Path, monkeypatch: Any, starter: ModuleType
) -> None:
    rounds = iter([0.9, 0.9])
    monkeypatch.setattr(starter, "accuracy", lambda *_: next(rounds))  # the third call fails
    monkeypatch.setattr(starter, "train", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", images=1)
    options = ["--random", "--rounds", "5", "--fraction", "0.5", "--size", "32"]
    monkeypatch.setattr(sys, "argv", ["x", "photos", *options])
    with pytest.raises(StopIteration):
        starter.main()
    assert starter.load("pruned.pt")[0].conv1.out_channels == 32
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "pruned.pt"]


def test_a_file_beside_the_one_to_write_is_left_alone(tmp_path: Path, starter: ModuleType) -> None:
    (tmp_path / "9.part").write_text("mine", encoding="utf-8")
    starter.save(nn.Linear(1, 1), tmp_path / "9.pt")
    assert (tmp_path / "9.part").read_text(encoding="utf-8") == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["9.part", "9.pt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
def test_a_full_disk_is_a_sentence_and_nothing_is_left(tmp_path: Path, starter: ModuleType) -> None:
    (tmp_path / "9.pt.part").symlink_to("/dev/full")
    with pytest.raises(ValueError, match=r"9.pt can't be written \(.*\): make room\.$"):
        starter.save(models.resnet18(), tmp_path / "9.pt")
    assert list(tmp_path.iterdir()) == []


def test_torchs_own_error_of_writing_is_a_sentence_too(
    tmp_path: Path, monkeypatch: Any, starter: ModuleType
) -> None:
    def fail(_: Any, file: Any) -> None:
        file.write(b"half")
        raise RuntimeError("unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(ValueError, match="unexpected pos 64 vs 0"):
        starter.save(nn.Linear(1, 1), tmp_path / "9.pt")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_in_a_sentence_and_status_130(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "get_model", interrupted)
    monkeypatch.setattr(sys, "argv", ["x", str(folder(tmp_path / "photos", images=1))])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 130
    assert capsys.readouterr().err.startswith("prune_resnet: interrupted: what was reached")


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
@pytest.mark.parametrize("target", ["..", ".", "../.."])
def test_a_link_that_goes_round_is_refused(
    target: str, tmp_path: Path, starter: ModuleType
) -> None:
    """Before it is followed: two of them double the paths with every turn."""
    train = folder(tmp_path / "photos", images=1) / "train"
    for name in ("blue", "red"):
        (train / name / "loop").symlink_to(target, target_is_directory=True)
    with pytest.raises(ValueError, match=r"loop leads back to where it lies: take the link out"):
        starter.load_images(train, 32, 2)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
@pytest.mark.parametrize("target", ["../blue", "../blue/0.png"])
def test_a_file_that_a_link_gives_twice_is_refused(
    target: str, tmp_path: Path, starter: ModuleType
) -> None:
    train = folder(tmp_path / "photos", images=1) / "train"
    (train / "red" / "link.png").symlink_to(target)
    with pytest.raises(ValueError, match="train holds a file twice, by a link: take the link out"):
        starter.load_images(train, 32, 2)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_to_elsewhere_are_followed(tmp_path: Path, starter: ModuleType) -> None:
    train = folder(tmp_path / "photos", images=1) / "train"
    (train / "red").rename(tmp_path / "elsewhere")
    (train / "red").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (train / "blue" / "round").symlink_to("round")  # leads nowhere
    assert len(starter.load_images(train, 32, 2).dataset) == 2


def test_what_is_no_picture_is_passed_over_with_a_word(
    tmp_path: Path, capsys: Any, starter: ModuleType
) -> None:
    train = folder(tmp_path / "photos", images=2) / "train"
    for name in ("red/1.heic", "red/2.gif", "red/deep/3.jfif", "blue/4.avif", "blue/5.txt"):
        (train / name).parent.mkdir(exist_ok=True)
        (train / name).touch()
    (train / "blue" / "6.mov").touch()
    assert len(starter.load_images(train, 32, 2).dataset) == 4
    said = capsys.readouterr().out
    assert said.startswith("Passed over, having no image's ending: ")
    assert said.endswith(" (6 in all).\n") and said.count(", ") == 5  # five names
    for part in ("red", "blue"):
        for path in (train / part).glob("*.png"):
            path.unlink()
    with pytest.raises(OSError):
        starter.load_images(train, 32, 2)
    assert "(6 in all)" in capsys.readouterr().out, "nor before an error"


def test_what_systems_add_is_no_class_and_no_picture(
    tmp_path: Path, capsys: Any, starter: ModuleType
) -> None:
    train = folder(tmp_path / "photos", images=2) / "train"
    for name in (".ipynb_checkpoints/a.png", "__MACOSX/red/b.png", "red/._0.png", "red/.c/d.png"):
        (train / name).parent.mkdir(parents=True, exist_ok=True)
        (train / name).write_bytes(b"no picture")
    (train / "red" / ".DS_Store").touch()
    images = starter.load_images(train, 32, 2).dataset
    assert images.classes == ["blue", "red"]
    assert [Path(path).name for path, _ in images.samples] == ["0.png", "1.png"] * 2
    assert capsys.readouterr().out == ""


def test_weights_that_cannot_be_downloaded(
    tmp_path: Path, monkeypatch: Any, capsys: Any, starter: ModuleType
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no connection")

    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", offline)
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", images=1)
    words = said(starter, ["photos", "--size", "32"], monkeypatch, capsys)
    assert "(no connection): connect, or add --random" in words


def test_pretrained_weights_are_used_with_a_new_last_layer(
    tmp_path: Path, monkeypatch: Any, capsys: Any, starter: ModuleType
) -> None:
    torch.manual_seed(0)
    pretrained = models.resnet18()
    state = pretrained.state_dict()
    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", lambda *_, **__: state)
    monkeypatch.setattr(starter, "train", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", images=1)
    monkeypatch.setattr(sys, "argv", ["x", "photos", "--rounds", "0", "--size", "32"])
    starter.main()
    network, _ = starter.load("pruned.pt")
    assert torch.equal(network.conv1.weight, pretrained.conv1.weight)
    assert network.fc.weight.shape == (2, 512)


def test_a_round_that_does_not_recover_is_not_kept(
    tmp_path: Path, monkeypatch: Any, capsys: Any, starter: ModuleType
) -> None:
    reached = iter([0.9, 0.89, 0.5])
    monkeypatch.setattr(starter, "accuracy", lambda network, batches: next(reached))
    monkeypatch.setattr(starter, "train", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "photos", images=1)
    monkeypatch.setattr(
        sys,
        "argv",
        ["x", "photos", "--random", "--rounds", "5", "--fraction", "0.5", "--size", "32"],
    )
    starter.main()
    assert "Round 2: validation 0.500, 0.880 needed" in capsys.readouterr().out
    assert starter.load("pruned.pt")[0].conv1.out_channels == 32


class Means(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x.mean((2, 3)))


def test_learns_and_counts_right_answers(starter):
    torch.manual_seed(0)
    labels = torch.tensor([0, 0, 0, 1] * 4)
    images = torch.eye(3)[labels].view(16, 3, 1, 1)
    batches = list(zip(images.split(4), labels.split(4), strict=True))
    network = Means()
    with torch.no_grad():
        network.fc.weight.zero_()
        network.fc.bias.copy_(torch.tensor([1.0, 0.0]))
    assert starter.accuracy(network, batches) == 0.75 and not network.training
    starter.train(network, batches, 20, 0.5)
    assert network.training
    assert starter.accuracy(network, batches) == 1


def test_images_are_whole_and_no_batch_is_of_one(starter, tmp_path):
    for part in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(4 if name == "a" else 3):
                image = Image.new("RGB", (300, 300))
                image.paste((255, 255, 255), (150, 0, 300, 300))
                image.save(tmp_path / part / name / f"{i}.png")
    (whole, _), *_ = starter.load_images(tmp_path / "val", 32, 2)
    assert whole.shape == (2, 3, 32, 32)
    assert (whole[..., 2] < 0).all() and (whole[..., -3] > 0).all()
    edge = (whole[0, 0, 0].diff() > 0.1).nonzero().flatten().tolist()
    assert edge and min(edge) >= 13 and max(edge) <= 17
    batches = starter.load_images(tmp_path / "train", 32, 2)
    assert [len(labels) for _, labels in batches] == [2, 2, 2]
    assert [len(labels) for _, labels in starter.load_images(tmp_path / "val", 32, 2)] == [
        2,
        2,
        2,
        1,
    ]
    once, again = (torch.cat([images for images, _ in batches]) for _ in range(2))
    assert not torch.equal(once, again) and len({tuple(i.flatten().tolist()) for i in once}) > 3


def test_speed(starter, monkeypatch):
    monkeypatch.setattr(starter.timeit, "repeat", lambda *_, **__: [9.0, 0.5, 2.0])
    assert starter.measure(models.resnet18(num_classes=2), 32).endswith(", 64 images/s")


def test_reads_every_image_before_it_trains(starter, tmp_path, monkeypatch):
    for part in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            Image.new("RGB", (40, 40)).save(tmp_path / "photos" / part / name / "0.png")
    (tmp_path / "photos" / "val" / "b" / "1.png").write_bytes(b"broken")
    monkeypatch.setattr(starter, "train", lambda *_: pytest.fail("trained first"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x", "photos", "--random", "--size", "32"])
    with pytest.raises(ValueError, match=r"1\.png can't be read"):
        starter.main()


def test_validation_images_are_whole(starter, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "val" / name).mkdir(parents=True)
        image = Image.new("RGB", (300, 300))
        image.paste((255, 255, 255), (75, 0, 300, 300))
        image.save(tmp_path / "val" / name / "0.png")
    ((images, _),) = starter.load_images(tmp_path / "val", 32, 2)
    assert (images[..., :6] < 0).all() and (images[..., 10:] > 0).all()
