"""The index of a solution of hipBLASLt or rocBLAS as the handle of a VendorAlgorithm: 32 bits, negative ones too."""

from __future__ import annotations

import re

_DIGITS = 8
_HANDLE = re.compile(rf"[0-9a-f]{{{_DIGITS}}}", re.ASCII).fullmatch


def handle_of(index: int) -> str:
    """8 hexadecimal digits, the largest first; of a negative index its two's complement."""
    return f"{index % 2**32:0{_DIGITS}x}"


def index_of(handle: str) -> int | None:
    """What `handle_of` made it of; None where it is none of those."""
    if not _HANDLE(handle):
        return None
    return (int(handle, 16) ^ 2**31) - 2**31
