"""A compiler's bytes as a CodeObject, with what their kernel needs read back from the bytes themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Protocol

from hktune.core.errors import TableError
from hktune.core.outcome import Failure, Status
from hktune.core.variant import CodeObject, Resources, Variant


class _Kernel(Protocol):
    @property
    def resources(self) -> Resources: ...


class Image(Protocol):
    @property
    def kernels(self) -> Mapping[str, _Kernel]: ...


def described(
    variant: Variant, data: bytes, read: Callable[[bytes], Image], compiler: str, compile_s: float
) -> CodeObject | Failure:
    """`data`, which `compiler` made of `variant` in `compile_s` seconds; `read` parses its format.

    Bytes that `read` refuses (TableError), and an image without the variant's kernel, are a compile error.
    """
    try:
        kernels = read(data).kernels
    except TableError as error:
        return Failure(Status.COMPILE_ERROR, f"{variant.template}: error: {error}")
    if variant.symbol not in kernels:
        found = ", ".join(sorted(kernels)) or "none"
        detail = f'{variant.template}: error: no kernel {variant.symbol}, found {found}: declare it extern "C"'
        return Failure(Status.COMPILE_ERROR, detail)
    return CodeObject(
        data=data,
        sha256=hashlib.sha256(data).hexdigest(),
        symbol=variant.symbol,
        arch=variant.arch,
        resources=kernels[variant.symbol].resources,
        compiler=compiler,
        compile_s=compile_s,
    )
