"""The loop: train, then again and again remove the least important filters, fine-tune, and check.

A run is a sequence of phases: the training of the full network, and per round a fine-tuning, or
more if it doesn't recover. A phase ends with a check and, if the network passed, with the next
surgery. A round that takes the batches saved for the last round is the last.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from course_lib import checkpoint, distributed, interrupt, measure
from course_lib.answers import balanced_accuracy, confusion, share_right
from course_lib.checkpoint import State
from course_lib.checks import as_begun, require_options, require_removal
from course_lib.config import Config
from course_lib.data import Data
from course_lib.errors import CourseError
from course_lib.pruning import CRITERIA, carry_optimizer, find_groups, prune, select
from course_lib.pruning.groups import Group
from course_lib.resnet import ResNet, config_of, from_saved, saved_form
from course_lib.training import (
    Augmentation,
    Loader,
    generator,
    pick_precision,
    place,
    predict,
    train,
)


@dataclass
class Run:
    """What the phases of a run share; all that changes is in `state`."""

    state: State
    loader: Loader
    out: Path
    image_shape: tuple[int, int, int]
    precision: torch.dtype
    bar: tqdm
    data: Data

    @property
    def example(self) -> Tensor:
        return torch.zeros(1, *self.image_shape)

    def check(self, limit: int | None = None) -> tuple[Tensor, Tensor]:
        """True classes of the validation set, or of its first `limit` images, and the answers."""
        # Folded, since that is what will be deployed and is checked in less time.
        folded = measure.fold(self.state.network)
        logits, labels = predict(folded, self.loader.batches("val", limit), self.precision)
        return labels, logits.argmax(1)


def make_loader(config: Config, data: Data, device: torch.device) -> Loader:
    """The batches of a run."""
    return Loader(
        data,
        device,
        batch_size=config.batch_size,
        seed=config.seed,
        augmentation=Augmentation(config.flip, config.shift, config.zoom),
        rank=distributed.rank(),
        world=distributed.world(),
    )


def iterate(
    config: Config,
    data: Data,
    out: Path,
    device: torch.device,
    *,
    network: ResNet | None = None,
    resume: bool = False,
    progress: bool = True,
    after_batch: Callable[[State], None] | None = None,
) -> State:
    """Train and prune until the last round is done or one fails the gate; return the final state.

    `out` exists. A new run begins with a copy of `network`, by default with random weights; with
    `resume` it goes on from its checkpoint there, if it has one. `after_batch` is called with the
    state after every batch. After `distributed.join` all processes call it; `out` is read and
    written by the first alone.
    On Ctrl-C the batch that is being trained on is finished, and what was trained is saved first.
    Raises CourseError when the loss is no longer a number, no filter would ever go, or the images
    aren't those the run began with.
    """
    size, channels = data.train.images.shape[1], data.train.images.shape[3]

    def start() -> State:
        found = checkpoint.load(out, config, device) if resume else None
        first = network or config.network(len(data.classes), channels, size)
        state = found or checkpoint.new_state(config, first, device)
        if found is None:
            require_options(config)
            require_removal(state, torch.zeros(1, channels, size, size))
        as_begun(state, data)
        return state

    state = checkpoint.from_first(start, config, device)
    data = as_begun(state, data)  # in every process
    loader = make_loader(config, data, device)
    precision = pick_precision(config.precision, device)
    with tqdm(
        total=state.expected_batches,
        initial=state.batches,
        unit="batch",
        disable=not progress or distributed.rank() > 0,
        dynamic_ncols=True,
    ) as bar:
        run = Run(state, loader, out, (channels, size, size), precision, bar, data)
        if state.history:  # resumed: what lies there may be older, missing, or somebody else's
            distributed.on_first(partial(checkpoint.write_files, state, out, full=True))
        while not run.state.finished:
            _train_phase(run, after_batch)
            run.state = checkpoint.from_first(partial(_finish_phase, run), config, device)
    return run.state


def _train_phase(run: Run, after_batch: Callable[[State], None] | None) -> None:
    """Train from where the phase stands to its end, watching accuracy and writing checkpoints."""
    state, config = run.state, run.state.config
    run.bar.set_description(state.phase, refresh=False)
    clock = time.perf_counter()
    losses = train(
        distributed.wrap(state.network),
        state.optimizer,
        state.schedule,
        run.loader.training_batches(state.phase, state.batch, state.phase_batches),
        precision=run.precision,
        label_smoothing=config.label_smoothing,
        teacher=_teacher(run),
        distill=config.distill,
    )
    # Inside a batch the weights and the counts don't agree: a signal to stop waits for its end.
    with interrupt.held() as stop:
        for loss in losses:
            state.batch += 1
            state.batches += 1
            run.bar.update()
            if state.batch % config.curve_every == 0 or state.batch == state.phase_batches:
                distributed.on_first(partial(_watch, run, loss))
            now = time.perf_counter()
            state.seconds, clock = state.seconds + now - clock, now
            due = state.batch % config.checkpoint_every == 0 and state.batch < state.phase_batches
            asked = stop.signal is not None
            if due or asked:
                distributed.on_first(partial(checkpoint.save, state, run.out))
            if after_batch is not None:
                after_batch(state)
            if asked:
                stop.raise_if_asked()


def _teacher(run: Run) -> nn.Module | None:
    """The full network, if fine-tuning is to follow its answers."""
    full = run.state.full if run.state.config.distill else None
    return None if full is None else place(measure.fold(from_saved(full)), run.loader.device)


def _require_finite(loss: Tensor, state: State) -> None:
    if not torch.isfinite(loss):
        rate = "--rate" if state.round == 0 else "--finetune-rate"
        raise CourseError(
            f"The loss became {loss.item()} in {state.phase}, batch {state.batch}: "
            f"start again with a lower {rate}."
        )


def _watch(run: Run, loss: Tensor) -> None:
    """A point of the curve, on the way through a phase."""
    _require_finite(loss, run.state)
    _curve_point(run, *run.check(run.state.config.curve_images))


def _curve_point(run: Run, labels: Tensor, answers: Tensor) -> None:
    state = run.state
    point = share_right(labels, answers)
    state.curve.append({"batches": state.batches, "phase": state.phase, "accuracy": point})
    run.bar.set_postfix(accuracy=f"{point:.3f}", refresh=False)


def _finish_phase(run: Run) -> State:
    """Check, record, prune; and write down where that leads."""
    trained = replace(run.state, history=[*run.state.history], curve=[*run.state.curve])
    try:
        _close_phase(run)
    except KeyboardInterrupt:
        # At once, since some scores take minutes. Surgery makes new networks, so the trained one is
        # still what it was: resumed, the run begins with the check.
        checkpoint.save(trained, run.out)
        raise
    with interrupt.held():
        checkpoint.save(run.state, run.out)
        checkpoint.write_files(run.state, run.out, full=trained.round == 0)
    return run.state


def _close_phase(run: Run) -> None:
    """Check the network at the end of a phase, record it; then prune, fine-tune again or stop."""
    state, config = run.state, run.state.config
    clock = time.perf_counter()
    labels, answers = run.check()
    reached = share_right(labels, answers)
    passed = state.round == 0 or not config.gate or reached >= gate_level(state)
    if not passed and state.tries_left:
        state.attempt, state.batch = state.attempt + 1, 0
        checkpoint.start_cycle(state)
    else:
        state.seconds += time.perf_counter() - clock
        clock = time.perf_counter()
        matrix = confusion(labels, answers, len(run.data.classes))
        _record(run, reached, balanced_accuracy(matrix), passed)
        if not passed or state.last:
            state.finished = True
        else:
            _next_round(run)
    run.bar.total = state.expected_batches
    state.seconds += time.perf_counter() - clock


def gate_level(state: State) -> float:
    """The validation accuracy that a pruned network must reach."""
    return state.history[0]["val_accuracy"] - state.config.tolerance


def _record(run: Run, reached: float, balanced: float, passed: bool) -> None:
    """Write the line of history of the round that ends, and keep the network if it passed."""
    state, network = run.state, run.state.network
    groups = find_groups(network, run.example)
    line = {
        "round": state.round,
        "filters": sum(group.size for group in groups.values()),
        "parameters": measure.count_parameters(network),
        "bytes": measure.count_bytes(network),
        "macs": measure.count_macs(network, run.image_shape),
        "images_per_second": None,  # all rounds are timed together at the end
        "val_accuracy_pruned": state.val_accuracy_pruned,
        "val_accuracy": reached,
        "val_balanced_accuracy": balanced,
        "batches": state.batches,
        "seconds": round(state.seconds, 3),
        "passed": passed,
        "attempts": state.attempt + 1,
        "widths": {name: group.size for name, group in groups.items()},
        "network": config_of(network).to_dict(),
    }
    state.history.append(line)
    if passed:
        assert state.images is not None  # a run begins with its images
        state.passed = saved_form(network, **state.images)
    if state.round == 0:
        state.full = state.passed
    if not run.bar.disable:
        run.bar.write(describe(line, state.history[0]))


def describe(line: dict[str, Any], full: dict[str, Any]) -> str:
    """A line of history in words."""
    share = line["parameters"] / full["parameters"]
    after_surgery = line["val_accuracy_pruned"]
    dip = "" if after_surgery is None else f" (right after surgery {after_surgery:.3f})"
    verdict = "" if line["passed"] else "  did not recover: rolled back"
    return (
        f"round {line['round']:2d}  {line['filters']:5d} filters  {share:6.1%} of the parameters  "
        f"validation {line['val_accuracy']:.3f}{dip}{verdict}"
    )


def _next_round(run: Run) -> None:
    """Score, select, remove, and get ready to fine-tune; momentum is carried across the surgery."""
    state = run.state
    state.round += 1
    state.attempt = state.batch = 0
    groups = find_groups(state.network, run.example)
    keep = choose(run, groups)
    narrow = place(prune(state.network, groups, keep), run.loader.device)
    assert isinstance(narrow, ResNet)
    state.optimizer = carry_optimizer(state.optimizer, state.network, narrow, groups, keep)
    state.network = narrow
    checkpoint.start_cycle(state)
    labels, answers = run.check()
    state.val_accuracy_pruned = share_right(labels, answers)
    first = slice(state.config.curve_images)  # the curve's images are the first of them
    _curve_point(run, labels[first], answers[first])


def choose(run: Run, groups: dict[str, Group]) -> dict[str, Tensor]:
    """Score every filter and select those that stay."""
    state, config = run.state, run.state.config
    draws = generator(config.seed, state.phase, "criterion")
    batches = run.loader.sample(config.criterion_images)
    scores = CRITERIA[config.criterion](state.network, groups, batches, generator=draws)
    costs = None
    if config.cost == "macs":
        costs = measure.index_costs(groups, measure.layer_macs(state.network, run.image_shape))
    return select(
        scores,
        fraction=config.fraction,
        scope=config.scope,
        start=state.history[0]["widths"],
        round=state.round,
        floor=config.floor,
        cap=config.cap,
        multiple=config.multiple,
        normalise=config.normalise,
        cost=costs,
    )
