"""Which GPUs of this machine share a run, and which problems each of them measures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from hktune.core.errors import InputError
from hktune.core.identity import Identity
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.device.opening import count_devices, open_device

# What a trial takes of a GPU: so many seconds, and so many launches at these rates. Least squares over the 10,050
# trials of results/sm90a-nvidia-h100-80gb-hbm3's first run (H100, 2026-11-22) give 0.0105 s and 23.0.
_TRIAL_S = 0.0105
_TRIAL_LAUNCHES = 23.0
_FLOPS_PER_S = 6e14
_BYTES_PER_S = 2.5e12


def choose_gpus(kind: str, asked: int | None, settings: Settings) -> tuple[int, ...]:
    """The numbers of the GPUs that a run uses: the first `asked`, or all that this process sees (None).

    Partitions of one package share its memory and its power, so of these it is one unless more are asked for. Raises
    InputError when there are fewer, or when they are not the same model: a table is for one.
    """
    count = count_devices(kind, settings)
    if asked is not None and asked > count:
        raise InputError(f"--gpus {asked}: this process sees {count}; pass --gpus {count} or leave it out")
    if asked is None:
        asked = count if _whole(open_device(kind, settings=settings).identity) else 1
    identities = [open_device(kind, ordinal, settings).identity for ordinal in range(asked)]
    for ordinal, identity in enumerate(identities):
        if identity != identities[0]:
            raise InputError(
                f"GPU 0 is {_described(identities[0])}, GPU {ordinal} is {_described(identity)}: a table is for one "
                f"model; choose GPUs with {_CHOOSING[kind]}, or pass --gpus {ordinal}"
            )
    return tuple(range(asked))


def share_out(problems: Sequence[Problem], gpus: int) -> list[list[Problem]]:
    """`problems` for each of at most `gpus` GPUs, none empty, with about equal work: the largest group goes first, each
    to the GPU that has least.

    Problems that differ in m alone stay together, since their winners are timed at each other's m. Equal problems give
    equal shares, in whatever order they come.
    """
    families: defaultdict[tuple[int, int, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        families[problem.n, problem.k, str(problem.operation)].append(problem)
    order = sorted(families, key=lambda family: (-sum(map(trial_s, families[family])), family))
    shares: list[list[Problem]] = [[] for _ in range(min(gpus, len(families)))]
    for family in order:
        min(shares, key=lambda share: sum(map(trial_s, share))).extend(families[family])
    return shares


def trial_s(problem: Problem) -> float:
    """About how many seconds of a GPU a trial of `problem` takes; only the proportions matter."""
    launch_s = problem.flops / _FLOPS_PER_S + problem.bytes / _BYTES_PER_S
    return _TRIAL_S + _TRIAL_LAUNCHES * launch_s


_CHOOSING = {"cuda": "CUDA_VISIBLE_DEVICES", "hip": "HIP_VISIBLE_DEVICES"}


def _whole(identity: Identity) -> bool:
    """Whether the GPU is a package of its own; SPX is AMD's word for one that is not partitioned."""
    return identity.partition is None or identity.partition.startswith("SPX")


def _described(identity: Identity) -> str:
    parts = (identity.name, identity.arch, f"{identity.compute_units} CUs", identity.pci_id, identity.partition)
    return f"{parts[0]} ({', '.join(str(part) for part in parts[1:] if part)})"
