from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_data
from torch import nn

from course_lib.distillation import distance, soft_targets
from course_lib.errors import CourseError
from course_lib.training import (
    Augmentation,
    Loader,
    accuracy,
    generator,
    layout,
    make_optimizer,
    make_schedule,
    one_cycle,
    pick_device,
    pick_precision,
    predict,
    reflected,
    train,
)

CPU = torch.device("cpu")


def loader(**options) -> Loader:
    return Loader(tiny_data(), CPU, batch_size=16, seed=5, **options)


def test_an_epoch_shows_every_image_once_as_far_as_whole_batches_go():
    data, batches = tiny_data(), loader()
    seen = torch.cat([batches.training_batch("base", batch)[0] for batch in range(6)])
    originals = torch.cat([images for images, _ in batches.batches("train")])
    matches = (seen[:, None] == originals[None]).flatten(2).all(2)
    assert matches.any(1).all(), "every batch holds images of the training set"
    assert matches.sum(0).max() == 1, "none comes twice"
    assert len(seen) == 96 and len(data.train.labels) == 100


def test_batches_are_standardised_and_labelled_as_the_split_is():
    data = tiny_data()
    images, labels = next(loader().batches("val"))
    expected = (torch.from_numpy(data.val.images[:16]).float() / 255 - 0.4) / 0.2
    torch.testing.assert_close(images, expected.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-5)
    assert labels.tolist() == data.val.labels[:16].tolist()


def test_a_batch_is_a_function_of_seed_phase_and_index():
    a, b = loader(augmentation=Augmentation()), loader(augmentation=Augmentation())
    list(a.training_batches("base", 0, 9))  # what was drawn before must not matter
    for phase, batch in [("base", 11), ("round 2", 0)]:
        assert torch.equal(a.training_batch(phase, batch)[0], b.training_batch(phase, batch)[0])
    first, other = a.training_batch("base", 0)[0], a.training_batch("round 1", 0)[0]
    assert not torch.equal(first, other)


def test_generators_of_different_places_differ():
    keys = [(0, "base", 1), (0, "base", 2), (0, "round 1", 1), (1, "base", 1)]
    draws = {torch.rand(1, generator=generator(*key)).item() for key in keys}
    assert len(draws) == len(keys)


def test_augmentation_without_movement_is_the_identity():
    images = torch.rand(5, 3, 16, 16)
    still = Augmentation(flip=False, shift=0.0, zoom=0.0)
    torch.testing.assert_close(still(images, torch.Generator()), images, rtol=0, atol=1e-5)


def test_augmentation_mirrors_about_half_and_nothing_else():
    images = torch.rand(64, 3, 16, 16)
    moved = Augmentation(flip=True, shift=0.0, zoom=0.0)(images, torch.Generator().manual_seed(1))
    same = (moved - images).flatten(1).abs().amax(1) < 1e-5
    mirrored = (moved - images.flip(3)).flatten(1).abs().amax(1) < 1e-5
    assert (same ^ mirrored).all()
    assert 16 < same.sum() < 48


def test_a_shift_moves_by_whole_pixels_as_far_as_allowed():
    ramp = torch.arange(16.0).expand(200, 1, 16, 16)  # each pixel holds its column
    moved = Augmentation(flip=False, shift=0.25, zoom=0.0)(ramp, torch.Generator().manual_seed(1))
    shifts = (moved - ramp)[:, 0, 8, 8]
    assert 3.5 < shifts.abs().max() <= 4.0
    assert shifts.min() < -3 and shifts.max() > 3


def test_places_outside_are_reflected_as_pytorch_reflects_them():
    """For MPS, whose grid_sample can't."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(6, 3, 9, 12, generator=random)
    grid = torch.rand(6, 9, 12, 2, generator=random) * 5 - 2.5
    expected = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    inside = reflected(grid, (9, 12))
    found = F.grid_sample(images, inside, padding_mode="zeros", align_corners=False)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_memory_is_laid_out_as_the_device_wants_it():
    """Channels-last batches make MPS compute wrong gradients."""
    assert layout(torch.device("mps")) == torch.contiguous_format
    assert layout(CPU) == torch.channels_last
    for images, _ in (loader().training_batch("base", 0), next(loader().batches("val"))):
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_training_learns_and_hands_out_each_loss():
    batches = loader()
    torch.manual_seed(0)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    optimizer = make_optimizer(network, 0.5, 0.9, 0.0)
    schedule = make_schedule(optimizer, 0.5, 40, 0.2)
    losses = list(train(network, optimizer, schedule, batches.training_batches("base", 0, 40)))
    assert len(losses) == 40 and losses[-1] < 0.5 * losses[0]
    assert accuracy(network, batches.batches("test")) > 0.95
    assert optimizer.param_groups[0]["lr"] < 0.01, "the cycle has come down"


def test_one_cycle_is_training_with_an_optimiser_of_its_own():
    batches = loader()
    torch.manual_seed(0)
    by_hand = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    network = copy.deepcopy(by_hand)
    optimizer = make_optimizer(by_hand, 0.3, 0.8, 1e-3)
    schedule = make_schedule(optimizer, 0.3, 20, 0.4)
    made = batches.training_batches("base", 0, 20)
    expected = list(train(by_hand, optimizer, schedule, made, label_smoothing=0.1))
    how = {"momentum": 0.8, "weight_decay": 1e-3, "warm_up": 0.4, "label_smoothing": 0.1}
    losses = list(one_cycle(network, batches.training_batches("base", 0, 20), 20, 0.3, **how))
    assert losses == expected
    assert torch.equal(network[2].weight, by_hand[2].weight)


@pytest.mark.parametrize(
    ("batches", "warm_up"), [(0, 0.5), (1, 0.5), (2, 0.5), (4, 0.25), (5, 0.2)]
)
def test_a_rise_of_a_single_batch_is_no_division_by_zero(batches, warm_up):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    schedule = make_schedule(optimizer, 0.1, batches, warm_up)
    assert 0 <= schedule.get_last_lr()[0] <= 0.1


def test_distance_by_hand_and_its_gradient():
    """Two classes at temperature 2: log-odds 0 against the teacher's ln 9, halved to ln 3."""
    logits = torch.zeros(1, 2, requires_grad=True)
    targets = torch.tensor([[math.log(9), 0.0]])
    found = distance(logits, targets, temperature=2.0)
    # The teacher says ¾ and ¼: ¾ ln(¾ / ½) + ¼ ln(¼ / ½), times 2².
    assert found.item() == pytest.approx(4 * (0.75 * math.log(1.5) - 0.25 * math.log(2)))
    found.backward()
    # Kullback–Leibler's gradient is (p − q) / T, times T².
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.5, 0.5]]))
    assert distance(targets, targets).item() == pytest.approx(0, abs=1e-6)


def test_a_teacher_is_followed_even_where_labels_say_otherwise():
    batches = loader()
    torch.manual_seed(0)
    network, teacher = (
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)) for _ in range(2)
    )
    teacher.train()
    optimizer = make_optimizer(network, 0.5, 0.9, 0.0)
    schedule = make_schedule(optimizer, 0.5, 60, 0.2)
    data = batches.training_batches("base", 0, 60)
    losses = list(train(network, optimizer, schedule, data, teacher=teacher, distill=1.0))
    assert losses[-1] < 0.02 * losses[0]
    before, after = (predict(one, batches.batches("test"))[0] for one in (teacher, network))
    assert (before.argmax(1) == after.argmax(1)).float().mean() > 0.95
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_predict_leaves_the_mode_and_matches_a_plain_loop():
    batches, network = loader(), nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(768, 3))
    network.train()
    logits, labels = predict(network, batches.batches("val"))
    assert network.training
    network.eval()
    images = torch.cat([images for images, _ in batches.batches("val")])
    torch.testing.assert_close(logits, network(images), rtol=1e-5, atol=1e-5)
    expected = (network(images).argmax(1) == labels).float().mean().item()
    assert accuracy(network, batches.batches("val")) == pytest.approx(expected)


def test_limit_takes_the_first_images():
    assert sum(len(labels) for _, labels in loader().batches("val", 20)) == 20


def test_a_sample_is_drawn_once_by_the_seed():
    """As in training: not the first images of the split, which may all be of one class."""
    batches = loader(augmentation=Augmentation())
    originals, labels = (torch.cat(parts) for parts in zip(*batches.batches("train"), strict=True))
    sizes = [len(images) for images, _ in batches.sample(40)]
    assert sizes == [16, 16, 8]
    images, found = (torch.cat(parts) for parts in zip(*batches.sample(40), strict=True))
    matches = (images[:, None] == originals[None]).flatten(2).all(2)
    chosen = matches.int().argmax(1)
    assert matches.any(1).all() and torch.equal(found, labels[chosen])
    assert len(set(chosen.tolist())) == 40 and chosen.max() > 50
    assert torch.equal(torch.cat([images for images, _ in batches.sample(40)]), images)
    other = Loader(tiny_data(), CPU, batch_size=16, seed=6)
    assert not torch.equal(torch.cat([images for images, _ in other.sample(40)]), images)
    assert sum(len(images) for images, _ in batches.sample(1000)) == len(labels)


def test_devices_and_precisions_that_are_not_there_are_named():
    if not torch.cuda.is_available():
        with pytest.raises(CourseError, match="no cuda device"):
            pick_device("cuda")
    with pytest.raises(CourseError, match="'tpu'"):
        pick_device("tpu")
    with pytest.raises(CourseError, match="'int3'"):
        pick_precision("int3", CPU)
    assert pick_precision("auto", CPU) == torch.float32


def test_device_auto_without_the_variable(monkeypatch):
    monkeypatch.delenv("COURSE_DEVICE", raising=False)
    there = [
        ("cuda", torch.cuda.is_available()),
        ("mps", torch.backends.mps.is_available()),
        ("cpu", True),
    ]
    assert pick_device().type == next(name for name, is_there in there if is_there)


def test_training_puts_the_network_in_training_mode():
    network = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    batches = [(torch.randn(4, 3, 4, 4), torch.tensor([0, 1, 0, 1]))] * 2
    for _ in train(network, optimizer, schedule, batches):
        assert network.training
        network.eval()
    assert network[1].num_batches_tracked == 2


def test_momentum_stays_as_it_is():
    optimizer = make_optimizer(nn.Linear(2, 2), 0.1, 0.7, 0.0)
    schedule = make_schedule(optimizer, 0.1, 10, 0.2)
    seen = set()
    for _ in range(9):
        seen.add(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        schedule.step()
    assert seen == {0.7}


def test_the_loss_follows_the_teacher():
    torch.manual_seed(0)
    student, teacher = (nn.Sequential(nn.Flatten(), nn.Linear(12, 3)) for _ in range(2))
    images, labels = torch.randn(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        expected = distance(student(images), soft_targets(teacher, images))
    optimizer = torch.optim.SGD(student.parameters(), 0.1)
    (loss,) = train(
        student,
        optimizer,
        torch.optim.lr_scheduler.ConstantLR(optimizer),
        [(images, labels)],
        teacher=teacher,
        distill=1.0,
    )
    assert torch.equal(loss, expected)
