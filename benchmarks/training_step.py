"""A training step of the example transformer with and without a table, end to end.

    python benchmarks/training_step.py --record shapes.yaml        # the products of one step, to be tuned
    python benchmarks/training_step.py results/<device>            # then: the times, by that table

Forward, cross entropy, backward and a fused AdamW, on a GPU by default: width 4096, 4,096 tokens. Two models of equal
weights take turns, one of them with the table enabled: eager, as a captured graph and compiled. Printed are the
medians, and the median of torch's time over hktune's, round by round, with its 99 % interval. Then both train for
`--steps` steps, and it says how far their losses are apart. `--device cpu --width 64 --layers 2 --vocabulary 96
--tokens 32` runs the same on the emulated device, whose times mean nothing.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from step_time import born_on, captured, rounds_us, show  # type: ignore[import-not-found]
from torch import Tensor
from torch.nn import functional

import hktune

Step = Callable[[], Tensor]
# What torch's step and hktune's run in. A training job turns the table on once, so a step's time has no part of that.
INSIDE = nullcontext, hktune.enable


def trainer(model: Any, tokens: Tensor, compiled: bool = False) -> Step:
    """A step that trains `model` to say the next of `tokens`, and gives the loss."""
    rate = torch.tensor(1e-4, device=tokens.device) if tokens.is_cuda else 1e-4
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, fused=True, capturable=tokens.is_cuda)
    forward = torch.compile(model) if compiled else model

    def step() -> Tensor:
        logits = forward(tokens)
        loss = functional.cross_entropy(logits[0, :-1].float(), tokens[0, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        return loss.detach()

    return step


def both(model: Any, tokens: Tensor, compiled: bool = False) -> tuple[Step, Step]:
    """Steps of two copies of `model`, torch's and hktune's, with gradients and optimizer states in place."""
    steps = trainer(copy.deepcopy(model), tokens, compiled), trainer(copy.deepcopy(model), tokens, compiled)
    for step, inside in zip(steps, INSIDE, strict=True):
        with inside():
            step()
    return steps


def graphs(model: Any, tokens: Tensor) -> tuple[Step, Step]:
    """The same as captured graphs, which hold their kernels: nothing is to be enabled for a replay."""
    one, other = both(model, tokens)
    with hktune.enable():
        replayed = captured(other)
    return captured(one), replayed


def losses(model: Any, tokens: Tensor, count: int) -> None:
    """Trains both for `count` steps and prints how far their losses are apart."""
    theirs, ours = trainer(copy.deepcopy(model), tokens), trainer(copy.deepcopy(model), tokens)
    by_torch = [float(theirs()) for _ in range(count)]
    with hktune.enable():
        pairs = list(zip([float(ours()) for _ in range(count)], by_torch, strict=True))
    apart = max(abs(first - second) / second for first, second in pairs)
    first, last = pairs[0][1], pairs[-1][1]
    ends = f"loss {first:.4f} to {last:.4f} by torch, {pairs[-1][0]:.4f} by hktune"
    print(f"{count} steps: {ends}; {apart:.1e} apart at most")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path, nargs="?", metavar="DIR", help="a results directory of this device")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the shapes instead")
    parser.add_argument("--device", default="cuda")
    sizes = (("tokens", 4096), ("width", 4096), ("layers", 2), ("vocabulary", 32768), ("rounds", 30), ("steps", 200))
    for name, default in sizes:
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N")
    options = parser.parse_args(arguments)
    if (options.directory is None) == (options.record is None):
        parser.error("pass either a results directory DIR or --record FILE")
    from transformer import Transformer  # type: ignore[import-not-found]  # step_time has put it on the path

    torch.manual_seed(0)
    with born_on(options.device):
        model = Transformer(options.width, max(options.width // 128, 4), options.layers, options.vocabulary)
        tokens = torch.randint(options.vocabulary, (1, options.tokens))
    if options.record:
        step = trainer(copy.deepcopy(model), tokens)
        with hktune.record(options.record):
            step()
        return
    hktune.load(options.directory, allow_modelled=options.device == "cpu").warm()
    show("eager", rounds_us(both(model, tokens), options.rounds, INSIDE))
    print(hktune.stats())
    if tokens.is_cuda:
        show("graph", rounds_us(graphs(model, tokens), options.rounds))
        show("compiled", rounds_us(both(model, tokens, compiled=True), options.rounds, INSIDE))
        print(hktune.stats())
    losses(model, tokens, options.steps)


if __name__ == "__main__":
    main()
