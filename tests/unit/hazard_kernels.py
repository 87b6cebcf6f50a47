"""Kernels of a few lines that are right, or wrong in one way, for the tests of the hazard checker."""

from __future__ import annotations

import numpy as np
from gfx950_code import assemble, launch

from hktune.core.errors import KernelFault
from hktune.device.emulated import EmulatedDevice

ENTRY = """
s_load_dwordx2 s[6:7], s[0:1], 0
s_load_dwordx2 s[8:9], s[0:1], 8
v_lshlrev_b32 v1, 2, v0
v_lshlrev_b32 v2, 4, v0
s_waitcnt lgkmcnt(0)
"""
"""s[6:7] and s[8:9] are the two arguments; v1 and v2 are 4 and 16 times the work-item."""

BUFFER = """
s_mov_b32 s12, s6
s_and_b32 s13, s7, 0xffff
s_mov_b32 s14, 0x4000
s_mov_b32 s15, 0x00020000
"""
"""s[12:15] describes the first argument as a buffer."""


def hazard(lines: str, waves: int = 1, groups: int = 1, lds_bytes: int = 8192, entry: str = ENTRY) -> str | None:
    """What the checker says of a kernel of `lines`, after `entry`; None when it says nothing.

    Both arguments are 16 KiB. Every line of `lines` may hold several instructions, parted by semicolons.
    """
    code = assemble(f"{entry}\n{lines}\ns_endpgm", lds_bytes=lds_bytes)
    arrays = (np.zeros(4096, np.uint32), np.zeros(4096, np.uint32))
    device = EmulatedDevice(deadline_s=60.0, find_hazards=True, strict_hazards=True)
    try:
        launch(code, *arrays, grid=(groups, 1, 1), block=(64 * waves, 1, 1), device=device)
    except KernelFault as fault:
        if fault.status != "hazard":
            raise
        return fault.detail
    return None
