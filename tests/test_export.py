"""Exported networks against PyTorch's own answers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from networks import randomise

from course_lib import export
from course_lib.errors import CourseError
from course_lib.pruning import find_groups, l1, prune, select
from course_lib.resnet import ResNet, resnet_config

IMAGES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network() -> ResNet:
    """Pruned to odd widths."""
    wide = randomise(ResNet(resnet_config(18, 5, base_width=8)), seed=1).eval()
    groups = find_groups(wide, IMAGES[:1])
    return prune(wide, groups, select(l1(wide, groups), fraction=0.4))


@pytest.fixture(scope="module")
def file(network: ResNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export.write_onnx(network, IMAGES, tmp_path_factory.mktemp("onnx") / "network.onnx")


@torch.no_grad()
def test_onnx_runtime_gives_the_same_for_any_number_of_images(network: ResNet, file: Path) -> None:
    run, expected = export.open_onnx(file), network(IMAGES)
    for count in (1, 2, 6):
        error = (run(IMAGES[:count]) - expected[:count]).abs().max() / expected.abs().max()
        assert error < 1e-5


@torch.no_grad()
def test_eight_bits_give_nearly_the_same_from_a_smaller_file(
    network: ResNet, file: Path, tmp_path: Path
) -> None:
    small = export.quantize_onnx(file, IMAGES, tmp_path / "small.onnx")
    expected = network(IMAGES)
    given = export.open_onnx(small)(IMAGES)
    error = (given - expected).norm() / expected.norm()
    assert 1e-5 < error < 0.2  # the same would mean that nothing was rounded
    assert small.stat().st_size < file.stat().st_size


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name)
    )
    with pytest.raises(CourseError, match=r"needs onnxscript: .*\[export\]"):
        export.write_onnx(torch.nn.Linear(2, 2), IMAGES, tmp_path / "network.onnx")
