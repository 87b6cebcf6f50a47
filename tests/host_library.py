"""Shared libraries for this machine, made of one C or C++ file by what `ziglang` has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def built(source: Path, library: Path, *flags: str) -> Path:
    """Compile `source` (.c or .cpp) with `flags`, and link it into `library`. Returns `library`.

    It is linked by lld alone. Zig's own way to link first compiles its runtime libraries, and libc++ for C++, which
    takes minutes where they are in no cache. What the code calls of libc and libm, Python has loaded."""
    language, part = ("c++" if source.suffix == ".cpp" else "cc"), library.with_suffix(".o")
    compiler = [language, "-fPIC", "-fno-sanitize=all", *flags, "-c", "-o", str(part), str(source)]
    linker = ["ld.lld", "-shared", "-soname", library.name, "-o", str(library), str(part)]
    for command in (compiler, linker):
        subprocess.run([sys.executable, "-m", "ziglang", *command], check=True, timeout=240)
    return library
