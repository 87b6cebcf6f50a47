"""A process that compiles one CUDA source with NVRTC: `python nvrtc_child.py SOURCE OBJECT OPTION...`.

NVRTC cannot be interrupted, so it works where it can be killed. Prints NVRTC's log; ends with 1 where it refused.
Imports nothing of hktune: it starts in a tenth of a second.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose files are no top-level modules


def main(source: str, target: str, *options: str) -> int:
    """Compile the file `source` into the file `target`."""
    nvrtc = importlib.import_module("cuda.bindings.nvrtc")

    def checked(result: tuple[Any, ...]) -> Any:
        if result[0]:
            raise SystemExit(f"error: NVRTC says {result[0].name}")
        return result[1] if len(result) > 1 else None

    program = checked(nvrtc.nvrtcCreateProgram(Path(source).read_bytes(), source.encode(), 0, [], []))
    refused = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])[0]
    log = bytes(checked(nvrtc.nvrtcGetProgramLogSize(program)))
    checked(nvrtc.nvrtcGetProgramLog(program, log))
    print(log.rstrip(b"\0").decode(errors="replace").strip(), file=sys.stderr)
    if refused:
        return 1
    cubin = bytes(checked(nvrtc.nvrtcGetCUBINSize(program)))
    checked(nvrtc.nvrtcGetCUBIN(program, cubin))
    Path(target).write_bytes(cubin)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
