"""Two processes of torch.distributed on this machine, by gloo."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable

import torch
import torch.distributed as dist


def work_as_rank(rank: int, folder: str, work: Callable[[int], None]) -> None:
    """What one of two processes does, from its start to its end; they meet by a file in `folder`.

    A gloo thread may still be destroying its last AsyncWork, which gives up a Python object. If the interpreter has
    begun to end by then, torch cannot have the GIL and the process aborts: seen in a core file, torch 2.13. So the
    process leaves without the interpreter's end, where `work` raised nothing.
    """
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # whatever this machine's name leads to
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        work(rank)
    finally:
        dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)
