"""The CPU and a CUDA device agree; skipped where there is none."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

import pytest
import torch
from tiny import TINY, tiny_data

from course_lib import checkpoint
from course_lib.iterate import iterate
from course_lib.pruning import CRITERIA, carry_optimizer, find_groups, masked, prune, select
from course_lib.resnet import ResNet, resnet_config
from course_lib.training import Augmentation, Loader, make_optimizer, place

pytestmark = pytest.mark.gpu


@pytest.fixture
def networks() -> tuple[ResNet, torch.nn.Module]:
    torch.manual_seed(0)
    network = ResNet(resnet_config(18, 10, base_width=8)).eval()
    there = ResNet(resnet_config(18, 10, base_width=8)).eval()
    there.load_state_dict(network.state_dict())
    return network, place(there, torch.device("cuda"))


# What the devices round differently: nothing of the weights, but what networks compute (TF32).
TOLERANCES = {"apoz": 2e-2, "taylor": 5e-2, "fisher": 5e-2, "obd": 5e-2}


# critical counts right answers: one that rounding turns over moves ranks.
@pytest.mark.parametrize("criterion", sorted(set(CRITERIA) - {"random", "critical"}))
def test_scores_and_plans_agree(networks, criterion):
    here, there = networks
    example = torch.zeros(1, 3, 64, 64)
    groups = find_groups(here, example)
    assert find_groups(there, example.cuda()) == groups
    batches = [(torch.randn(8, 3, 64, 64), torch.arange(8))]
    mine, theirs = (
        CRITERIA[criterion](network, groups, batches, generator=torch.Generator().manual_seed(1))
        for network in networks
    )
    for name in groups:
        rest = mine[name].isfinite()
        assert torch.equal(theirs[name].isfinite(), rest)
        error = (theirs[name] - mine[name])[rest].abs().max()
        assert error <= TOLERANCES.get(criterion, 1e-5) * mine[name][rest].abs().max()
    if criterion not in TOLERANCES:
        plans = [select(scores, fraction=0.3) for scores in (mine, theirs)]
        assert all(torch.equal(plans[0][name], plans[1][name]) for name in groups)


def test_surgery_agrees_and_stays_on_the_device(networks):
    here, there = networks
    groups = find_groups(here, torch.zeros(1, 3, 64, 64))
    keep = select(CRITERIA["l1"](here, groups), fraction=0.4)
    images = torch.randn(4, 3, 64, 64)
    narrow = prune(there, groups, keep)
    assert {parameter.device.type for parameter in narrow.parameters()} == {"cuda"}
    with torch.no_grad(), masked(there, groups, keep):
        wide = there(images.cuda())
    with torch.no_grad():
        torch.testing.assert_close(narrow(images.cuda()), wide, rtol=1e-3, atol=1e-3)
        expected = prune(here, groups, keep)(images)
        torch.testing.assert_close(narrow(images.cuda()).cpu(), expected, rtol=1e-2, atol=1e-2)


def test_the_loop_runs_there(tmp_path):
    state = iterate(TINY, tiny_data(), tmp_path, torch.device("cuda"), progress=False)
    assert [line["round"] for line in state.history] == [0, 1, 2, 3]
    assert state.history[0]["val_accuracy"] > 0.8


def test_plans_across_the_network_agree(networks):
    groups = find_groups(networks[0], torch.zeros(1, 3, 64, 64))
    plans = [
        select(CRITERIA["l1"](network, groups), fraction=0.3, scope="network", multiple=2)
        for network in networks
    ]
    assert all(torch.equal(plans[0][name], plans[1][name]) for name in groups)
    assert any(len(plans[0][name]) < group.size for name, group in groups.items())


def test_momentum_is_cut_alike_and_stays_on_the_device(networks):
    groups = find_groups(networks[0], torch.zeros(1, 3, 64, 64))
    keep = select(CRITERIA["l1"](networks[0], groups), fraction=0.4)
    optimizers = [make_optimizer(network, 0.1, 0.9, 0.0) for network in networks]
    for parameter in networks[0].parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizers[0].step()
    networks[1].load_state_dict(networks[0].state_dict())
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    momenta = []
    for network, optimizer in zip(networks, optimizers, strict=True):
        narrow = prune(network, groups, keep)
        carried = carry_optimizer(optimizer, network, narrow, groups, keep)
        momenta.append([carried.state[p]["momentum_buffer"] for p in narrow.parameters()])
    assert {momentum.device.type for momentum in momenta[1]} == {"cuda"}
    assert all(torch.equal(a, b.cpu()) for a, b in zip(*momenta, strict=True))


def test_batches_agree():
    mine, theirs = (
        Loader(tiny_data(), torch.device(name), batch_size=8, augmentation=Augmentation())
        for name in ("cpu", "cuda")
    )
    for batch in (0, 13):
        (images, labels), (there, truth) = (
            loader.training_batch("base", batch) for loader in (mine, theirs)
        )
        assert there.device.type == "cuda" and torch.equal(labels, truth.cpu())
        torch.testing.assert_close(there.cpu(), images, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_made_there_is_read_here(tmp_path):
    network = TINY.network(3, 3, 16)
    state = checkpoint.new_state(TINY, network, torch.device("cuda"))
    checkpoint.save(state, tmp_path)
    here = checkpoint.load(tmp_path, TINY, torch.device("cpu"))
    for name, tensor in state.network.state_dict().items():
        assert torch.equal(here.network.state_dict()[name], tensor.cpu()), name


# TF32 rounds to 10 bits, bfloat16 to 7; the difference grows through the layers.
@pytest.mark.parametrize(("precision", "most"), [("float32", 2e-2), ("bfloat16", 1e-1)])
@pytest.mark.parametrize("way", ["channels_last", "cuda_graph", "compiled"])
def test_every_way_to_run_it_computes_the_same(monkeypatch, networks, way, precision, most):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "benchmarks"))
    ways = importlib.import_module("ways")
    taken = getattr(ways, way)
    if precision == "bfloat16":
        taken = functools.partial(ways.bfloat16, way=taken)
    images = torch.randn(4, 3, 64, 64, device="cuda")
    found = ways.timed({"full": networks[1]}, images, taken, passes=1, seconds=0.0)
    assert found["apart"] < most, found
