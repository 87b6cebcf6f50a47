"""A recording of a made-up kernel: a stencil on a made-up GPU, by formulas of its own.

It has what makes real spaces hard to search: coupled parameters of which few combinations are legal, words without an
order, configs that fail, steps where one more block no longer fits, and a few good configs far apart.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

from hktune.store.recordings import Recording, load_recordings

UNITS, THREADS_MAX, MEMORY_BYTES, REGISTERS = 80, 1024, 48 << 10, 65536
GRID, HALO = 4096, 14
ORDERS = {"rows": 1.12, "columns": 1.3, "tiles": 1.0}
Values = dict[str, int | str | bool]


def legal() -> Iterator[Values]:
    for block_x in range(16, 257, 16):
        for block_y in (1, 2, 4, 8, 16):
            for tile in (1, 2, 3, 4):
                for rows in (1, 2, 4):
                    for order in ORDERS:
                        for padded in (False, True):
                            if 32 <= block_x * block_y <= THREADS_MAX and not (padded and block_x % 32 == 0):
                                yield {
                                    "block_x": block_x,
                                    "block_y": block_y,
                                    "tile": tile,
                                    "rows": rows,
                                    "order": order,
                                    "padded": padded,
                                }


def time_ms(config: Values) -> float | str:
    """The time of a config, or Kernel Tuner's word for why it has none."""
    block_x, block_y, tile, rows = (int(config[name]) for name in ("block_x", "block_y", "tile", "rows"))
    threads, registers = block_x * block_y, 18 + 6 * tile * rows
    memory_bytes = 4 * (block_x * tile + HALO + bool(config["padded"])) * (block_y * rows + HALO)
    if memory_bytes > MEMORY_BYTES:
        return "CompilationFailedConfig"
    if registers * threads > REGISTERS:
        return "RuntimeFailedConfig"
    resident = min(2048 // threads, 2 * MEMORY_BYTES // memory_bytes, REGISTERS // (registers * threads))
    blocks = math.ceil(GRID / (block_x * tile)) * math.ceil(GRID / (block_y * rows))
    waves = math.ceil(blocks / (UNITS * resident))
    hidden = min(1.0, resident * threads / 1024) ** 0.5
    conflicts = 1.0 if block_x % 32 == 0 or config["padded"] else 1.35
    work = threads * tile * rows * resident / hidden * conflicts
    traffic = memory_bytes * resident / (1.0 if block_x >= 64 else 0.8)
    noise = zlib.crc32(json.dumps(config, sort_keys=True).encode()) % 1000 / 1000
    return waves * max(work * 2e-5, traffic * 6e-6) * ORDERS[str(config["order"])] * (1 + 0.02 * noise) + 0.01


def ragged_recording(folder: Path) -> Recording:
    """The recording, by way of a cache file in `folder`."""
    cache = {",".join(map(str, config.values())): {**config, "time": time_ms(config)} for config in legal()}
    path = folder / "ragged.json"
    path.write_text(json.dumps({"tune_params_keys": list(next(legal())), "objective": "time", "cache": cache}))
    [recording] = load_recordings(path)
    return recording
