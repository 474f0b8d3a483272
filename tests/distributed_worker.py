"""One process under the launcher: the command line on tiny data, for test_distributed.py.

Its first arguments: a folder for what it saw; the batch at which process 1 dies, 0 for never.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from tiny import tiny_data
from torch import nn

from course_lib import distributed
from course_lib import run as command_line
from course_lib.__main__ import main as command
from course_lib.checkpoint import State
from course_lib.training import Loader, make_optimizer, make_schedule, train

CPU = torch.device("cpu")


def three_steps() -> dict[str, torch.Tensor]:
    """Weights after three steps, in float64 and without batch norm: an oracle for the gradients."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(196, 3))
    ).double()
    optimizer = make_optimizer(network, 0.1, 0.9, 5e-4)
    schedule = make_schedule(optimizer, 0.1, 10, 0.5)
    share = {"rank": distributed.rank(), "world": distributed.world()}
    loader = Loader(tiny_data(), CPU, batch_size=16, seed=3, **share)
    batches = ((images.double(), y) for images, y in loader.training_batches("base", 0, 3))
    list(train(distributed.wrap(network), optimizer, schedule, batches))
    return network.state_dict()


def main(seen: Path, dies_at: int, arguments: list[str]) -> int:
    """Run the command line and write down what this process ends with."""
    iterate = command_line.iterate

    def watched(*positional, **options) -> State:
        rank = distributed.rank()

        def after_batch(state: State) -> None:
            if rank == 1 and state.batches == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)

        steps = three_steps() if not dies_at else {}
        state = iterate(*positional, **options, after_batch=after_batch)
        ends = {"weights": state.network.state_dict(), "steps": steps, "world": distributed.world()}
        torch.save(ends, seen / f"{rank}.pt")
        return state

    command_line.iterate = watched
    command_line.load_data = lambda *_, **__: tiny_data()
    return command(arguments)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
