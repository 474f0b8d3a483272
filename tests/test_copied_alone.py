"""The folder course_lib/pruning, copied into an empty one, prunes torchvision's own networks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PRUNING = Path(__file__).resolve().parent.parent / "course_lib" / "pruning"

# Isolated mode leaves out this folder and PYTHONPATH, so the copy is put on the path by hand; an
# installed course_lib is hidden on purpose.
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
sys.modules["course_lib"] = None

import torch, torchvision
from mypruning import carry_optimizer, find_groups, l1, masked, prune, select

torch.manual_seed(0)
network = torchvision.models.get_model(sys.argv[2], num_classes=10).double()
images, labels = torch.randn(4, 3, 32, 32).double(), torch.arange(4)
for module in network.modules():
    if isinstance(module, torch.nn.BatchNorm2d):  # as after training
        module.running_mean.normal_(0, 0.1)
        module.running_var.uniform_(0.5, 2)
        torch.nn.init.uniform_(module.weight, 0.5, 1.5)
        torch.nn.init.normal_(module.bias, 0, 0.1)

groups = find_groups(network, images)
keep = select(l1(network, groups), fraction=0.5)
narrow = prune(network, groups, keep)
optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
carried = carry_optimizer(optimizer, network, narrow, groups, keep)


def compare():
    with torch.no_grad(), masked(network.eval(), groups, keep):
        expected = network(images)
    return ((narrow.eval()(images) - expected).abs().max() / expected.abs().max()).item()


def step(network, optimizer):
    torch.nn.functional.cross_entropy(network.train()(images), labels).backward()
    optimizer.step()


assert compare() <= 1e-9
before = narrow.conv1.weight.clone()
step(narrow, carried)
assert not torch.equal(narrow.conv1.weight, before)
assert compare() > 1e-3, "the step must show"
with masked(network, groups, keep):
    step(network, optimizer)
assert compare() <= 1e-9
assert not [name for name in sys.modules if name.startswith("course_lib.")]
before, after = (sum(p.numel() for p in n.parameters()) for n in (network, narrow))
print(len(groups), round(after / before, 2))
"""


@pytest.mark.parametrize(("name", "groups"), [("resnet18", 12), ("resnet34", 20), ("resnet50", 37)])
def test_it_prunes_torchvisions_networks(name: str, groups: int, tmp_path: Path) -> None:
    hidden = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PRUNING, tmp_path / "mypruning", ignore=hidden)
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "script.py", str(tmp_path), name],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found, left = done.stdout.split()
    assert int(found) == groups  # one a stage, one for each inner convolution, and a free stem
    assert float(left) == pytest.approx(0.25, abs=0.02)
