"""A table for a training job: one step recorded, its products tuned, the job served, and its losses compared.

    python examples/training.py [DIR] [--steps N]

A small transformer is trained twice from the same weights on the same tokens, under autocast to bfloat16 and with a
fused AdamW: by PyTorch, and by PyTorch with the table enabled. How far their losses are apart is printed next to how
far PyTorch's own are from those of the same training in float32: rounding moves any of them.

On a GPU the times of the table are measured. Without one everything runs on the emulated gfx950, whose times are
modelled. There a step takes about a second, and tuning about a minute.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformer import Transformer  # the example next to this one

import hktune

Step = Callable[[], float]


@dataclass(frozen=True)
class Job:
    """What is trained, and how many configs are tried for each of its products."""

    width: int
    layers: int
    vocabulary: int
    tokens: int
    trials: int
    learning_rate: float


SMALL = Job(width=64, layers=1, vocabulary=96, tokens=32, trials=2, learning_rate=3e-3)
"""For the emulated device, which takes some 50 ms for a product of these sizes."""
ON_A_GPU = Job(width=2048, layers=2, vocabulary=8192, tokens=4096, trials=24, learning_rate=3e-4)


@dataclass(frozen=True)
class Outcome:
    """The losses of each step, and what the table served."""

    by_torch: list[float]
    by_hktune: list[float]
    in_float32: list[float]
    stats: hktune.runtime.Stats

    @property
    def apart(self) -> float:
        """The most that a loss of hktune's is from torch's, in parts of the first one."""
        return _apart(self.by_hktune, self.by_torch)

    @property
    def apart_by_rounding(self) -> float:
        """The same of torch's bfloat16 and float32."""
        return _apart(self.by_torch, self.in_float32)


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def model_of(job: Job) -> nn.Module:
    """The same for the same job: float32 weights, as autocast has them."""
    torch.manual_seed(0)
    model = Transformer(job.width, max(job.width // 128, 4), job.layers, job.vocabulary)
    nn.init.normal_(model.embedding.weight, std=job.width**-0.5)
    return model.to(device())


def trainer(model: nn.Module, job: Job, autocast: bool = True) -> Step:
    """A step that trains `model` to say the next token, and gives the loss. The next token follows from the last one
    by a rule that does not change, so there is something to learn; the tokens of a step are those of its number."""
    random = torch.Generator().manual_seed(1)
    rule = torch.randperm(job.vocabulary, generator=random)
    optimizer = torch.optim.AdamW(model.parameters(), lr=job.learning_rate, fused=True)

    def step() -> float:
        tokens = torch.randint(job.vocabulary, (1, job.tokens), generator=random)
        with torch.autocast(device(), torch.bfloat16, enabled=autocast):
            logits: Tensor = model(tokens.to(device()))
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), rule[tokens].flatten().to(device()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def record(job: Job, shapes: Path) -> None:
    """Write the products of one step, forward and backward, each with how often it is called."""
    step = trainer(model_of(job), job)
    with hktune.record(shapes):
        step()


def tune(job: Job, shapes: Path, directory: Path) -> None:
    """Make a table of them in `directory`: measured on a GPU, modelled without one."""
    where = "auto" if torch.cuda.is_available() else "emulated"
    hktune.tune(shapes, device=where, trials=job.trials, out=directory)


def train(job: Job, steps: int, directory: Path) -> Outcome:
    """Train three times for so many steps: by torch, by the table of `directory`, and in float32."""
    table = hktune.load(directory, allow_modelled=not torch.cuda.is_available())
    table.warm()
    model = model_of(job)

    def losses(served: bool, autocast: bool = True) -> list[float]:
        step = trainer(copy.deepcopy(model), job, autocast)
        with hktune.enable(table) if served else nullcontext():
            return [step() for _ in range(steps)]

    by_torch, by_hktune = losses(served=False), losses(served=True)
    return Outcome(by_torch, by_hktune, losses(served=False, autocast=False), table.stats())


def _apart(first: list[float], second: list[float]) -> float:
    return max(abs(one - other) for one, other in zip(first, second, strict=True)) / second[0]


def run(job: Job, steps: int, directory: Path) -> Outcome:
    directory.mkdir(parents=True, exist_ok=True)
    record(job, directory / "shapes.yaml")
    tune(job, directory / "shapes.yaml", directory / "table")
    return train(job, steps, directory / "table")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path, nargs="?", metavar="DIR", help="where shapes and table are kept")
    parser.add_argument("--steps", type=int, default=200, metavar="N")
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as temporary:
        outcome = run(ON_A_GPU if on_gpu else SMALL, options.steps, options.directory or Path(temporary))
    name = torch.cuda.get_device_name() if on_gpu else "emulated gfx950"
    print(f"table: times {'measured' if on_gpu else 'modelled'}, {name}")
    print(f"loss of step 1, and of step {options.steps}:")
    for who, losses in (
        ("PyTorch", outcome.by_torch),
        ("hktune", outcome.by_hktune),
        ("PyTorch in float32", outcome.in_float32),
    ):
        print(f"  {who:<20}{losses[0]:8.4f}{losses[-1]:8.4f}")
    print(f"hktune and PyTorch are {outcome.apart:.1e} of the first loss apart at most, ", end="")
    print(f"PyTorch and float32 {outcome.apart_by_rounding:.1e}")
    print(outcome.stats)


if __name__ == "__main__":
    main()
