"""Removed is the same as masked: the theorem, the proof that it can fail, and the edges."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import Case, Plus, cases, plans, randomise
from torch import Tensor, nn

from course_lib.pruning import (
    CRITERIA,
    Group,
    PruningError,
    carry_optimizer,
    find_groups,
    masked,
    prune,
)
from course_lib.resnet import BlockConfig, ResNet, ResNetConfig, config_of, resnet_config

Groups = dict[str, Group]
Keep = dict[str, Tensor]
TOLERANCE = 1e-9


def assert_close(narrow: Tensor, wide: Tensor, what: str = "output") -> None:
    assert narrow.shape == wide.shape, f"{what}: {narrow.shape}, not {wide.shape}"
    assert wide.isfinite().all(), what
    if wide.numel():
        error = (narrow - wide).abs().max().item()
        assert error <= TOLERANCE * max(1.0, wide.abs().max().item()), f"{what}: off by {error}"


def kept_part(name: str, tensor: Tensor, groups: Groups, keep: Keep) -> Tensor:
    """The slow, obvious version of slicing: go through all groups, cut each dimension by a list."""
    layer = name.rpartition(".")[0]
    for group_name, kept in keep.items():
        group = groups[group_name]
        if layer in (*group.makers, *group.norms) and tensor.dim() > 0:
            each = group.channels
            wanted = [i * each + j for i in kept.tolist() for j in range(each)]
            tensor = torch.stack([tensor[channel] for channel in wanted])
        columns = dict(group.readers).get(layer)
        if columns is not None and name.endswith("weight"):
            wanted = [i * columns + j for i in kept.tolist() for j in range(columns)]
            tensor = torch.stack([tensor[:, column] for column in wanted], dim=1)
    return tensor


def assert_shared_state(narrow: nn.Module, wide: nn.Module, groups: Groups, keep: Keep) -> None:
    """Weights, biases and running statistics of what was kept agree."""
    state = narrow.state_dict()
    for name, tensor in wide.state_dict().items():
        assert_close(state[name].double(), kept_part(name, tensor, groups, keep).double(), name)


def test_readers_may_be_called_by_keyword() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(input=self.two(input=self.one(x)).mean((2, 3)))

    network, images = Named().double(), torch.randn(4, 3, 2, 2, dtype=torch.float64)
    groups = find_groups(network, images)
    keep = {name: torch.tensor([0, 3]) for name in groups}
    with masked(network, groups, keep):
        wide = network(images)
    assert_close(prune(network, groups, keep)(images), wide)
    batches = [(images, torch.tensor([0, 1, 1, 0]))]
    for name, criterion in CRITERIA.items():
        if name != "bn_scale":
            scores = criterion(network, groups, batches, generator=torch.Generator())
            assert {key: len(value) for key, value in scores.items()} == {"one": 4, "two": 4}, name


def check_forward(
    case: Case,
    groups: Groups,
    keep: Keep,
    training: bool,
    prune: Callable[..., nn.Module] = prune,
    masked: Callable[..., AbstractContextManager] = masked,
) -> None:
    """The narrow network computes what the masked one does, and leaves the same statistics."""
    wide = case.network.train(training)
    narrow = prune(wide, groups, keep)
    with torch.no_grad():
        out = narrow(case.images)
        with masked(wide, groups, keep):
            expected = wide(case.images)
    assert_close(out, expected)
    assert_shared_state(narrow, wide, groups, keep)


def step(network: nn.Module, optimizer: torch.optim.Optimizer, case: Case, number: int) -> None:
    generator = torch.Generator().manual_seed(case.seed + number)
    out = network(torch.randn(case.images.shape, generator=generator, dtype=torch.float64))
    target = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    optimizer.zero_grad()
    (out - target).square().mean().backward()
    # Some of these networks would diverge within two steps, to weights of 1e10, and then a bias in
    # front of a batch norm, whose gradient cancels to nothing, is all rounding. What is cut off is
    # the same for both: channels that are read as zero have no gradient.
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


def check_training(
    case: Case,
    groups: Groups,
    keep: Keep,
    make_optimizer: Callable[..., torch.optim.Optimizer],
    carry: Callable[..., torch.optim.Optimizer] = carry_optimizer,
) -> None:
    """Steps before surgery give the optimiser a state; one after it must leave the same weights."""
    wide = case.network.train()
    optimizer = make_optimizer(wide.parameters())
    with masked(wide, groups, keep):
        step(wide, optimizer, case, 1)
        step(wide, optimizer, case, 2)
    narrow = prune(wide, groups, keep)
    carried = carry(optimizer, wide, narrow, groups, keep)
    step(narrow, carried, case, 3)
    with masked(wide, groups, keep):
        step(wide, optimizer, case, 3)
        expected = wide.eval()(case.images)
    assert_close(narrow.eval()(case.images), expected)
    assert_shared_state(narrow, wide, groups, keep)
    new = dict(narrow.named_parameters())
    for name, parameter in wide.named_parameters():
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor) and value.dim():
                value = kept_part(name, value, groups, keep)
            assert_close(
                torch.as_tensor(carried.state[new[name]][key]), torch.as_tensor(value), name
            )


@st.composite
def planned(draw: st.DrawFn, trained: bool = False, odd: bool = False) -> tuple[Case, Groups, Keep]:
    case = draw(cases(trained, odd))
    groups = find_groups(case.network, case.images, strict=not odd)
    return case, groups, draw(plans(groups))


@given(planned())
def test_removed_is_masked_in_evaluation(drawn: tuple[Case, Groups, Keep]) -> None:
    check_forward(*drawn, training=False)


@given(planned(trained=True))
def test_removed_is_masked_in_training(drawn: tuple[Case, Groups, Keep]) -> None:
    check_forward(*drawn, training=True)


@given(planned(odd=True), st.booleans())
def test_removed_is_masked_around_what_cannot_be_pruned(
    drawn: tuple[Case, Groups, Keep], training: bool
) -> None:
    check_forward(*drawn, training=training)


@given(planned(trained=True), st.sampled_from([0.0, 1e-2]), st.booleans())
def test_a_step_of_sgd_carries_across(
    drawn: tuple[Case, Groups, Keep], decay: float, nesterov: bool
) -> None:
    def make(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            parameters, lr=0.01, momentum=0.9, weight_decay=decay, nesterov=nesterov
        )

    check_training(*drawn, make)


@given(planned(trained=True))
def test_a_step_of_adam_carries_across(drawn: tuple[Case, Groups, Keep]) -> None:
    # Adam divides by the size of a gradient plus eps: with its usual eps of 1e-8 it would blow
    # rounding errors up wherever a gradient is nearly zero.
    check_training(*drawn, lambda parameters: torch.optim.Adam(parameters, lr=0.01, eps=1e-3))


# The checks above can fail: each of these does surgery wrongly in one way, and is caught.


def forget_the_norms(network: nn.Module, groups: Groups, keep: Keep) -> nn.Module:
    narrow = prune(network, groups, keep)
    for name, kept in keep.items():
        for norm in groups[name].norms:
            state = network.get_submodule(norm).state_dict()
            width = len(kept) * groups[name].channels
            first = {key: v[:width] if v.dim() else v for key, v in state.items()}
            narrow.get_submodule(norm).load_state_dict(first)
    return narrow


def misalign_the_shortcut(network: nn.Module, groups: Groups, keep: Keep) -> nn.Module:
    narrow = prune(network, groups, keep)
    for name in keep:
        for shortcut in groups[name].producers[1:]:
            weight = narrow.get_submodule(shortcut).weight
            weight.data = weight.data.roll(1, dims=0)
    return narrow


def read_the_first_columns(network: nn.Module, groups: Groups, keep: Keep) -> nn.Module:
    narrow = prune(network, groups, keep)
    for name in keep:
        for reader, _ in groups[name].readers:
            weight = narrow.get_submodule(reader).weight
            wide = network.get_submodule(reader).weight.data[:, : weight.shape[1]]
            weight.data = kept_part(
                f"{reader}.bias", wide, groups, keep
            )  # its own filters are right
    return narrow


@contextmanager
def zeroed_behind_producers(network: nn.Module, groups: Groups, keep: Keep) -> Iterator[nn.Module]:
    def hook(kept: Tensor) -> Callable[..., Tensor]:
        return lambda module, inputs, out: torch.zeros_like(out).index_copy(1, kept, out[:, kept])

    handles = [
        network.get_submodule(producer).register_forward_hook(hook(kept))
        for name, kept in keep.items()
        for producer in groups[name].producers
    ]
    yield network
    for handle in handles:
        handle.remove()


def some_images(size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, size, size, generator=generator, dtype=torch.float64)


def resnet_case(seed: int) -> tuple[Case, Groups, Keep]:
    blocks = ((BlockConfig((4, 6), 1, "norm"), BlockConfig((5, 6), 1, "bare")),)
    network = randomise(ResNet(ResNetConfig(6, blocks, 3)).double(), seed)
    images = some_images(16, seed)
    groups = find_groups(network, images)
    return Case(network, images, seed), groups, odd_indices(groups)


def chain_case(seed: int) -> tuple[Case, Groups, Keep]:
    body = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Sigmoid())
    network = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Sigmoid(), Plus(body)),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 16, 5), nn.BatchNorm1d(5), nn.Sigmoid()),
        nn.Linear(5, 2),
    )
    images = some_images(8, seed)
    groups = find_groups(randomise(network.double(), seed), images)
    return Case(network, images, seed), groups, odd_indices(groups)


def odd_indices(groups: Groups) -> Keep:
    return {name: torch.arange(1, group.size, 2) for name, group in groups.items()}


FIXED = [(resnet_case, 0), (resnet_case, 1), (chain_case, 0), (chain_case, 1)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("make", "seed"), FIXED)
class TestWrongSurgeryIsCaught:
    def test_but_right_surgery_passes(self, make: Callable, seed: int, training: bool) -> None:
        check_forward(*make(seed), training)

    @pytest.mark.parametrize(
        "wrong", [forget_the_norms, misalign_the_shortcut, read_the_first_columns]
    )
    def test_by_the_check(self, make: Callable, seed: int, training: bool, wrong: Callable) -> None:
        with pytest.raises(AssertionError, match="off by"):
            check_forward(*make(seed), training, prune=wrong)

    def test_zeros_behind_the_producer(self, make: Callable, seed: int, training: bool) -> None:
        with pytest.raises(AssertionError, match="output: off by"):
            check_forward(*make(seed), training, masked=zeroed_behind_producers)

    def test_no_mask_at_all(self, make: Callable, seed: int, training: bool) -> None:
        with pytest.raises(AssertionError, match="output: off by"):
            check_forward(*make(seed), training, masked=lambda network, *_: nullcontext(network))


def sgd(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


@pytest.mark.parametrize(("make", "seed"), FIXED)
def test_a_new_optimizer_is_caught(make: Callable, seed: int) -> None:
    check_training(*make(seed), sgd)
    with pytest.raises(AssertionError, match="off by"):
        check_training(
            *make(seed), sgd, carry=lambda old, wide, narrow, *_: sgd(narrow.parameters())
        )


@pytest.mark.parametrize(("make", "seed"), FIXED)
def test_masked_is_a_network_whose_readers_weigh_those_channels_with_zero(
    make: Callable, seed: int
) -> None:
    case, groups, keep = make(seed)
    zeroed = copy.deepcopy(case.network).eval()
    for name, kept in keep.items():
        for reader, columns in groups[name].readers:
            for index in set(range(groups[name].size)) - set(kept.tolist()):
                start = index * columns
                zeroed.get_submodule(reader).weight.data[:, start : start + columns] = 0
    with masked(case.network.eval(), groups, keep):
        assert_close(case.network(case.images), zeroed(case.images))


def test_pruning_what_is_masked_is_refused() -> None:
    """Copied, the masks would meet the narrower layers at their first batch."""
    case, groups, keep = resnet_case(0)
    words = r"inside `with masked\(…\)`.* after that block"
    with masked(case.network, groups, keep), pytest.raises(PruningError, match=words):
        prune(case.network, groups, keep)
    prune(case.network, groups, keep)(case.images)


def test_masked_restores_the_network_even_after_an_error() -> None:
    case, groups, keep = resnet_case(0)
    before = case.network.eval()(case.images)
    with pytest.raises(KeyError), masked(case.network, groups, keep):
        assert not torch.equal(case.network(case.images), before)
        raise KeyError
    assert torch.equal(case.network(case.images), before)


def test_prune_leaves_the_wide_network_untouched() -> None:
    case, groups, keep = resnet_case(0)
    case.network.train()
    case.network(case.images).sum().backward()
    case.network.bn1.bias.requires_grad = False
    before = copy.deepcopy(case.network.state_dict())
    gradient = case.network.conv1.weight.grad.clone()
    narrow = prune(case.network, groups, keep)
    for name, tensor in case.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert torch.equal(case.network.conv1.weight.grad, gradient)
    assert narrow.training and all(p.grad is None for p in narrow.parameters())
    assert not narrow.bn1.bias.requires_grad and narrow.conv1.weight.requires_grad
    mine = {p.untyped_storage().data_ptr() for p in narrow.state_dict().values()}
    theirs = {p.untyped_storage().data_ptr() for p in case.network.state_dict().values()}
    assert not mine & theirs


@pytest.mark.parametrize("make", [resnet_case, chain_case])
def test_layers_know_their_new_widths(make: Callable) -> None:
    case, groups, keep = make(0)
    narrow = prune(case.network, groups, keep)
    for name, module in narrow.named_modules():
        if isinstance(module, nn.Conv2d):
            assert (module.out_channels, module.in_channels) == module.weight.shape[:2], name
        elif isinstance(module, nn.Linear):
            assert (module.out_features, module.in_features) == module.weight.shape, name
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.num_features == len(module.running_mean), name


def test_a_pruned_network_is_rebuilt_from_its_widths() -> None:
    case, groups, keep = resnet_case(0)
    narrow = prune(case.network, groups, keep).eval()
    assert config_of(narrow) == ResNetConfig(
        3, ((BlockConfig((2, 3), 1, "norm"), BlockConfig((2, 3), 1, "bare")),), 3
    )
    rebuilt = ResNet(config_of(narrow)).double().eval()
    rebuilt.load_state_dict(narrow.state_dict())
    assert torch.equal(rebuilt(case.images), narrow(case.images))


def test_an_empty_plan_is_a_copy() -> None:
    case, groups, _ = chain_case(0)
    assert torch.equal(
        prune(case.network.eval(), groups, {})(case.images), case.network(case.images)
    )


def indices(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.long)


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        (indices(), "at least one"),
        (indices(0, 2, 1), "must rise"),
        (indices(1, 1), "must rise"),
        (indices(-1, 1), "must rise"),
        (indices(4, 6), "to 5 or less"),
        (indices(0, 1).float(), "integer"),
        (indices(0, 1)[None], "1-D"),
        ([0, 1], "1-D tensor"),
    ],
)
@pytest.mark.parametrize("use", [prune, lambda *plan: masked(*plan).__enter__()])
def test_a_bad_plan_is_refused_by_the_name_of_its_group(
    use: Callable, kept: object, says: str
) -> None:
    case, groups, _ = resnet_case(0)
    with pytest.raises(PruningError, match=says) as caught:
        use(case.network, groups, {"layer1.0.conv2": kept})
    assert "layer1.0.conv2" in str(caught.value)


def test_an_unknown_group_is_refused() -> None:
    case, groups, _ = resnet_case(0)
    with pytest.raises(PruningError, match=r"no group 'fc'.*layer1\.0\.conv1"):
        prune(case.network, groups, {"fc": indices(0)})


def test_groups_from_before_a_pruning_are_refused() -> None:
    case, groups, keep = resnet_case(0)
    narrow = prune(case.network, groups, keep)
    with pytest.raises(PruningError, match="There is no conv1 here: the groups are another"):
        prune(nn.Sequential(nn.Conv2d(3, 4, 1)), groups, keep)
    with pytest.raises(PruningError, match="conv1 has 3 filters, its group 6: call find_groups"):
        prune(narrow, groups, {"conv1": indices(0)})


def test_the_optimizers_settings_go_along() -> None:
    case, groups, keep = resnet_case(0)
    named = dict(case.network.named_parameters())
    norms = [p for name, p in named.items() if "bn" in name]
    others = [p for name, p in named.items() if "bn" not in name]
    optimizer = torch.optim.SGD(
        [{"params": norms, "weight_decay": 0.0, "lr": 0.5}, {"params": others}],
        lr=0.1,
        momentum=0.7,
        nesterov=True,
        weight_decay=0.01,
    )
    narrow = prune(case.network, groups, keep)
    carried = carry_optimizer(optimizer, case.network, narrow, groups, keep)
    for old, new in zip(optimizer.param_groups, carried.param_groups, strict=True):
        assert {k: v for k, v in old.items() if k != "params"} == {
            k: v for k, v in new.items() if k != "params"
        }
        assert [
            kept_part(*n_p, groups, keep).shape
            for n_p in named.items()
            if n_p[1] in set(old["params"])
        ] == [p.shape for p in new["params"]]
    assert {id(p) for g in carried.param_groups for p in g["params"]} == {
        id(p) for p in narrow.parameters()
    }


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_momentum_goes_along_in_the_order_of_the_weights(layout, fused) -> None:
    """A fused step doesn't look at strides: each number of momentum must lie beside its weight."""
    case, groups, keep = resnet_case(0)
    network = case.network.to(memory_format=layout)

    def step(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        network(case.images).square().mean().backward()
        optimizer.step()

    settings = {"lr": 0.1, "momentum": 0.9, "nesterov": True}
    optimizer = torch.optim.SGD(network.parameters(), **settings, fused=fused)
    step(network, optimizer)
    narrow = prune(network, groups, keep)
    carried = carry_optimizer(optimizer, network, narrow, groups, keep)
    before = {}
    for name, parameter in narrow.named_parameters():
        momentum = carried.state[parameter]["momentum_buffer"]
        assert momentum.stride() == parameter.stride(), name
        assert (
            parameter.dim() < 4 or parameter.is_contiguous(memory_format=layout)  # as the wide one
        ), name
        before[name] = parameter.detach().clone(), momentum.clone()
    step(narrow, carried)
    for name, parameter in narrow.named_parameters():
        weight, momentum = before[name]
        momentum = 0.9 * momentum + parameter.grad
        expected = weight - 0.1 * (parameter.grad + 0.9 * momentum)
        torch.testing.assert_close(parameter.detach(), expected, msg=name)


def test_an_optimizer_of_another_network_is_refused() -> None:
    case, groups, keep = resnet_case(0)
    other = sgd(nn.Linear(2, 2).parameters())
    with pytest.raises(PruningError, match="aren't the network's"):
        carry_optimizer(other, case.network, prune(case.network, groups, keep), groups, keep)


def test_a_network_that_another_plan_made_is_refused() -> None:
    case, groups, keep = resnet_case(0)
    optimizer = sgd(case.network.parameters())
    case.network(case.images).sum().backward()
    optimizer.step()
    name = next(name for name, kept in keep.items() if len(kept) > 1)
    narrow = prune(case.network, groups, keep)
    for other in ({**keep, name: keep[name][:1]}, {}):  # a single row would fit any number of them
        with pytest.raises(PruningError, match="of the narrow network isn't what this plan leaves"):
            carry_optimizer(optimizer, case.network, narrow, groups, other)
    with pytest.raises(PruningError, match="no group 'unknown'"):
        carry_optimizer(optimizer, case.network, narrow, groups, {"unknown": torch.tensor([0])})


def test_state_that_cannot_be_sliced_is_refused() -> None:
    case, groups, keep = resnet_case(0)
    optimizer = torch.optim.Adafactor(case.network.parameters())
    case.network(case.images).sum().backward()
    optimizer.step()
    narrow = prune(case.network, groups, keep)
    with pytest.raises(PruningError, match=r"row_var of .*conv1\.weight"):
        carry_optimizer(optimizer, case.network, narrow, groups, keep)


class Clipped(torch.optim.SGD):
    """Keeps a setting beside its groups, and may be made of parameters alone."""

    def __init__(self, parameters, clip: float = 1.0) -> None:
        super().__init__(parameters, lr=0.1, momentum=0.9)
        self.clip = clip


class Wrapped(torch.optim.SGD):
    def __init__(self, parameters, base) -> None:
        super().__init__(parameters, lr=0.1)


def test_what_an_optimizer_keeps_beside_its_groups_goes_along() -> None:
    case, groups, keep = resnet_case(0)
    narrow = prune(case.network, groups, keep)
    optimizer = Clipped(case.network.parameters(), clip=5.0)
    carried = carry_optimizer(optimizer, case.network, narrow, groups, keep)
    assert carried.clip == 5.0  # type: ignore[attr-defined]
    wrapped = Wrapped(case.network.parameters(), base=None)
    with pytest.raises(PruningError, match=r"Wrapped can't be made of parameters alone \(.*base"):
        carry_optimizer(wrapped, case.network, narrow, groups, keep)


def test_a_schedule_goes_on_with_the_new_optimizer() -> None:
    rates = []
    for cut in (False, True):
        case, groups, keep = resnet_case(0)
        optimizer = torch.optim.SGD(case.network.parameters(), 0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
        rates.append([])
        for number in range(9):
            if cut and number == 4:
                narrow = prune(case.network, groups, keep)
                optimizer = carry_optimizer(optimizer, case.network, narrow, groups, keep)
                schedule.optimizer = optimizer
            optimizer.step()
            schedule.step()
            rates[-1].append(
                (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"])
            )
    assert rates[0] == rates[1]


def test_a_member_of_a_group_is_told_its_group() -> None:
    network = ResNet(resnet_config(18, 3, base_width=4, projection="needed"))
    groups = find_groups(network, torch.zeros(1, 3, 32, 32))
    with pytest.raises(PruningError, match=r"layer1\.0\.conv2 is no group, but belongs to conv1"):
        prune(network, groups, {"layer1.0.conv2": indices(0)})


def test_an_optimizer_of_more_than_the_network_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    groups = find_groups(network, torch.zeros(1, 3, 4, 4))
    keep = {"0": torch.tensor([1, 2])}
    both = torch.optim.SGD([*network.parameters(), *nn.Linear(2, 2).parameters()], 0.1)
    with pytest.raises(PruningError, match="parameters that aren't the network's"):
        carry_optimizer(both, network, prune(network, groups, keep), groups, keep)
