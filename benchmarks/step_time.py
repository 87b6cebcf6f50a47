"""The example transformer's forward pass with and without a table, end to end.

    python benchmarks/step_time.py --tokens 1 16 512 2048 --record shapes.yaml   # the shapes of all passes, to be tuned
    python benchmarks/step_time.py --tokens 1 16 512 2048 results/<device>       # then: the times, by that table

On a GPU by default: width 4096, for each number of tokens eager and as a captured graph. Plain and patched model take
turns, who is first alternating; printed are the medians, and the median of torch's time over hktune's, round by round,
with its 99 % interval. An eager pass that takes a tenth longer than its own graph is called host-bound: its ratio says
what calls cost, not kernels. `--device cpu --width 64 --layers 2 --vocabulary 96` runs the same on the emulated
device, whose times mean nothing.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

import hktune
from hktune.measure.statistics import median_interval

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
from transformer import Transformer  # type: ignore[import-not-found]

CONFIDENCE = 0.99
HOST_BOUND = 1.1  # times a graph's replay of the same kernels
UNTIMED_ROUNDS = 3
Step = Callable[[], Tensor]
Steps = tuple[Step, Step]  # torch's and hktune's


@contextmanager
def born_on(device: str) -> Iterator[None]:
    """Parameters are made and initialised there, as bf16: on the host it would take longer than all the timing."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def synchronize() -> None:
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def rounds_us(
    steps: Steps, rounds: int, inside: Sequence[Callable[[], AbstractContextManager[object]]] = (nullcontext,) * 2
) -> tuple[list[float], list[float]]:
    """The time of both steps in each round, their launches waited for, each inside of its context."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(-UNTIMED_ROUNDS, rounds):
        for at in (0, 1) if number % 2 else (1, 0):
            with inside[at]():
                synchronize()
                start = time.perf_counter()
                steps[at]()
                synchronize()
                if number >= 0:
                    times[at].append((time.perf_counter() - start) * 1e6)
    return times


def captured(step: Step) -> Step:
    """`step` as a replay of a graph."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    return lambda: graph.replay() or out


def patched(model: Transformer) -> Transformer:
    """Another model of the very same parameters, its layers served by the current table."""
    other: Transformer = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    hktune.patch(other, quiet=True)
    return other


def compare(model: Transformer, other: Transformer, tokens: Tensor, rounds: int) -> None:
    """Prints what a pass of `tokens` takes each of them, and how far their logits are apart."""
    before = hktune.stats()
    expected, served = model(tokens), other(tokens)
    after, calls = hktune.stats(), sum(isinstance(layer, hktune.Linear) for layer in other.modules())
    kernels = after.hits + after.near_hits - before.hits - before.near_hits
    error = (served - expected).float().norm() / expected.float().norm()
    print(f"{tokens.numel()} tokens: {kernels} of {calls} products by the table, logits {error:.1e} apart")

    steps: Steps = (lambda: model(tokens)), (lambda: other(tokens))
    eager = rounds_us(steps, rounds)
    if tokens.is_cuda:
        graph = rounds_us((captured(steps[0]), captured(steps[1])), rounds)
        pairs = zip(("torch", "hktune"), eager, graph, strict=True)
        slow = [who for who, calls, replays in pairs if median(calls) > HOST_BOUND * median(replays)]
        show("eager", eager, f"   host-bound: {', '.join(slow)}" if slow else "")
        show("graph", graph)
    else:
        show("eager", eager)


def show(name: str, times: tuple[list[float], list[float]], remark: str = "") -> None:
    ratios = [torchs / ours for torchs, ours in zip(*times, strict=True)]
    print(
        f"  {name}   torch{median(times[0]):>10,.0f} us   hktune{median(times[1]):>10,.0f} us   "
        f"torch / hktune {median_interval(ratios, CONFIDENCE)}{remark}"
    )


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path, nargs="?", metavar="DIR", help="a results directory of this device")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the shapes instead")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 16, 512, 2048], metavar="N")
    for name, default in (("width", 4096), ("layers", 4), ("vocabulary", 32768), ("rounds", 60)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N")
    options = parser.parse_args(arguments)
    if (options.directory is None) == (options.record is None):
        parser.error("pass either a results directory DIR or --record FILE")
    torch.manual_seed(0)
    start = time.perf_counter()
    with born_on(options.device):
        model = Transformer(options.width, max(options.width // 128, 4), options.layers, options.vocabulary)
        passes = [torch.randint(options.vocabulary, (1, count)) for count in options.tokens]
    synchronize()
    print(f"{sum(each.numel() for each in model.parameters()):,} weights, made in {time.perf_counter() - start:.1f} s")

    if options.record:
        with hktune.record(options.record):
            for tokens in passes:
                model(tokens)
        return
    hktune.load(options.directory, allow_modelled=options.device == "cpu").warm()
    other = patched(model)
    for tokens in passes:
        compare(model, other, tokens, options.rounds)
    print(hktune.stats())


if __name__ == "__main__":
    main()
