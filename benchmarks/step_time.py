"""The example transformer's forward pass with and without a table, end to end.

    python benchmarks/step_time.py --record shapes.yaml            # the shapes that the pass calls, to be tuned
    python benchmarks/step_time.py results/<device>                # then: the times, by that table

On a GPU by default: width 4096, eager and as a captured graph, plain and patched taking turns, medians. `--device cpu
--width 64 --layers 2 --vocabulary 96` runs the same on the emulated device, whose times mean nothing.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import hktune

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
from transformer import Transformer  # type: ignore[import-not-found]

Step = Callable[[], Tensor]


def synchronize(tokens: Tensor) -> None:
    if tokens.is_cuda:
        torch.cuda.synchronize()


def medians_us(steps: dict[str, Step], tokens: Tensor, rounds: int) -> dict[str, float]:
    """Median time of each step, its launches waited for, over rounds in which they take turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            synchronize(tokens)
            start = time.perf_counter()
            step()
            synchronize(tokens)
            times[name].append((time.perf_counter() - start) * 1e6)
    return {name: statistics.median(each) for name, each in times.items()}


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
    hktune.patch(other)
    return other


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path, nargs="?", metavar="DIR", help="a results directory of this device")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the shapes instead")
    parser.add_argument("--device", default="cuda")
    for name, default in (("width", 4096), ("layers", 4), ("vocabulary", 32768), ("tokens", 512), ("rounds", 30)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N")
    options = parser.parse_args()
    torch.manual_seed(0)
    heads = max(options.width // 128, 4)
    model = Transformer(options.width, heads, options.layers, options.vocabulary).bfloat16().to(options.device)
    tokens = torch.randint(options.vocabulary, (1, options.tokens), device=options.device)

    if options.record:
        with hktune.record(options.record):
            model(tokens)
        return
    table = hktune.load(options.directory, allow_modelled=options.device == "cpu")
    table.warm()
    other = patched(model)
    expected, served = model(tokens), other(tokens)
    error = (served - expected).float().norm() / expected.float().norm()
    print(f"one pass: {table.stats()}\nlogits apart from torch's bf16 by {error:.1e}")
    steps: dict[str, Step] = {"torch": lambda: model(tokens), "hktune": lambda: other(tokens)}
    if tokens.is_cuda:
        steps |= {f"{name}, graph": captured(step) for name, step in steps.items()}
    for name, value in medians_us(steps, tokens, options.rounds).items():
        print(f"  {name:<16}{value:>12,.0f} us")


if __name__ == "__main__":
    main()
