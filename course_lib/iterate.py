"""The loop: train, then again and again remove the least important filters, fine-tune, and check.

A run is a sequence of phases: the training of the full network, and a fine-tuning per round (two,
if the first doesn't
recover). A phase ends with a check and, if the network passed, with the next surgery.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from course_lib import checkpoint, distributed, interrupt, measure
from course_lib.answers import balanced_accuracy, confusion
from course_lib.checkpoint import State
from course_lib.checks import require_removal, require_same_data
from course_lib.config import Config
from course_lib.data import Data
from course_lib.errors import CourseError
from course_lib.pruning import CRITERIA, carry_optimizer, find_groups, prune, select
from course_lib.pruning.groups import Group
from course_lib.resnet import ResNet, config_of, saved_form
from course_lib.training import (
    Augmentation,
    Loader,
    accuracy,
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
    def example(self) -> torch.Tensor:
        return torch.zeros(1, *self.image_shape)

    def check(self, limit: int | None = None) -> float:
        """Accuracy on the validation set, or on its first `limit` images."""
        # Folded, since that is what will be deployed and is checked in less time.
        folded = measure.fold(self.state.network)
        return accuracy(folded, self.loader.batches("val", limit), self.precision)

    def check_classes(self) -> tuple[float, float]:
        """Accuracy and balanced accuracy on the whole validation set."""
        folded = measure.fold(self.state.network)
        logits, labels = predict(folded, self.loader.batches("val"), self.precision)
        matrix = confusion(labels, logits.argmax(1), len(self.data.classes))
        return matrix.trace().item() / len(labels), balanced_accuracy(matrix)


def make_loader(config: Config, data: Data, device: torch.device) -> Loader:
    """The batches of a run."""
    augmentation = Augmentation(config.flip, config.shift, config.zoom)
    return Loader(
        data,
        device,
        batch_size=config.batch_size,
        seed=config.seed,
        augmentation=augmentation,
        rank=distributed.rank(),
        world=distributed.world(),
    )


def iterate(
    config: Config,
    data: Data,
    out: Path,
    device: torch.device,
    *,
    resume: bool = False,
    progress: bool = True,
    after_batch: Callable[[State], None] | None = None,
) -> State:
    """Train and prune until the last round is done or a round fails the gate; return the final
    state.

    `out` exists. With `resume` the run goes on from its checkpoint there, or from the beginning if
    it has none.
    `after_batch` is called with the state after every batch, for those who want to watch.
    After `distributed.join` all processes call it; `out` is read and written by the first alone.
    On Ctrl-C the batch that is being trained on is finished and saved first.
    Raises CourseError when the loss is no longer a number, no filter would ever go, or the images
    aren't those the run began with.
    """
    size, channels = data.train.images.shape[1], data.train.images.shape[3]

    def start() -> State:
        found = checkpoint.load(out, config, device) if resume else None
        network = config.network(len(data.classes), channels, size)
        state = found or checkpoint.new_state(config, network, device)
        if found is None:
            require_removal(state, torch.zeros(1, channels, size, size))
        require_same_data(state, data)
        return state

    state = checkpoint.from_first(start, config, device)
    loader = make_loader(config, data, device)
    precision = pick_precision(config.precision, device)
    with tqdm(
        total=max(config.total_batches, state.batches),
        initial=state.batches,
        unit="batch",
        disable=not progress or distributed.rank() > 0,
        dynamic_ncols=True,
    ) as bar:
        run = Run(state, loader, out, (channels, size, size), precision, bar, data)
        while not run.state.finished:
            _train_phase(run, after_batch)
            run.state = checkpoint.from_first(partial(_finish_phase, run), config, device)
    distributed.on_first(partial(_write_files, run))
    return run.state


def _train_phase(run: Run, after_batch: Callable[[State], None] | None) -> None:
    """Train from where the phase stands to its end, watching the accuracy and writing checkpoints
    on the way.
    """
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
    )
    # Inside a batch the weights and the counts don't agree: a signal to stop waits for its end.
    with interrupt.held() as stop:
        for loss in losses:
            state.batch += 1
            state.batches += 1
            run.bar.update()
            if state.batch % config.curve_every == 0 or state.batch == state.phase_batches:
                distributed.on_first(partial(_curve_point, run, loss))
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


def _require_finite(loss: torch.Tensor, state: State) -> None:
    if not torch.isfinite(loss):
        rate = "--rate" if state.round == 0 else "--finetune-rate"
        raise CourseError(
            f"The loss became {loss.item()} in {state.phase}, batch {state.batch}: "
            f"start again with a lower {rate}."
        )


def _curve_point(run: Run, loss: torch.Tensor | None = None) -> None:
    state = run.state
    if loss is not None:
        _require_finite(loss, state)
    point = run.check(state.config.curve_images)
    state.curve.append({"batches": state.batches, "phase": state.phase, "accuracy": point})
    run.bar.set_postfix(accuracy=f"{point:.3f}", refresh=False)


def _finish_phase(run: Run) -> State:
    """Check, record, prune; and write down where that leads."""
    _close_phase(run)
    checkpoint.save(run.state, run.out)
    _write_files(run)
    return run.state


def _close_phase(run: Run) -> None:
    """Check the network at the end of a phase; record it; then prune it, fine-tune it again, or
    stop.
    """
    state, config = run.state, run.state.config
    clock = time.perf_counter()
    reached, balanced = run.check_classes()
    passed = state.round == 0 or not config.gate or reached >= gate_level(state)
    if not passed and state.attempt < config.retries:
        state.attempt += 1
        state.batch = 0
        checkpoint.start_cycle(state)
        run.bar.total = (run.bar.total or 0) + config.finetune_batches
    else:
        state.seconds += time.perf_counter() - clock
        clock = time.perf_counter()
        _record(run, reached, balanced, passed)
        if not passed or state.round == config.rounds:
            state.finished = True
        else:
            _next_round(run)
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
        state.passed = saved_form(network, **_about(run.data))
    if state.round == 0:
        state.full = state.passed
    if not run.bar.disable:
        run.bar.write(describe(line, state.history[0]))


def _about(data: Data) -> dict[str, Any]:
    """What somebody needs to use a saved network: its classes, and how images are standardised."""
    return {
        "classes": list(data.classes),
        "mean": list(data.mean),
        "std": list(data.std),
        "image_size": data.train.images.shape[1],
    }


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
    narrow = prune(state.network, groups, keep)
    assert isinstance(narrow, ResNet)
    state.optimizer = carry_optimizer(state.optimizer, state.network, narrow, groups, keep)
    state.network = place(narrow, run.loader.device)  # type: ignore[assignment]
    checkpoint.start_cycle(state)
    state.val_accuracy_pruned = run.check()
    _curve_point(run)


def choose(run: Run, groups: dict[str, Group]) -> dict[str, torch.Tensor]:
    """Score every filter and select those that stay."""
    state, config = run.state, run.state.config
    draws = generator(config.seed, state.phase, "criterion")
    batches = run.loader.sample(config.criterion_images)
    scores = CRITERIA[config.criterion](state.network, groups, batches, generator=draws)
    return select(
        scores,
        fraction=config.fraction,
        scope=config.scope,
        start=state.history[0]["widths"],
        round=state.round,
        floor=config.floor,
        cap=config.cap,
        multiple=config.multiple,
    )


def _write_files(run: Run) -> None:
    """Write what people read, from what the checkpoint holds."""
    state, out = run.state, run.out
    checkpoint.write_lines(out / "history.jsonl", state.history)
    checkpoint.write_lines(out / "curve.jsonl", state.curve)
    for name, saved in (("full.pt", state.full), ("network.pt", state.passed)):
        if saved is not None:
            checkpoint.write_whole(out / name, partial(torch.save, saved))
