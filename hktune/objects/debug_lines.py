"""A process that finds the source line of an address: `python -m hktune.objects.debug_lines ADDRESS`.

The object comes on standard input. Prints `file:line`, or nothing where there is none. What it takes of time and memory
is bounded; see `hktune.objects.code_object.source_line`.
"""

from __future__ import annotations

import io
import resource
import sys

from elftools.elf.elffile import ELFFile

_CPU_S = 8
_MEMORY_BYTES = 1 << 30


def nearest(data: bytes, address: int) -> str:
    """The nearest `file:line` at or before virtual `address`; empty without any."""
    elf = ELFFile(io.BytesIO(data))
    if not elf.has_dwarf_info():
        return ""
    dwarf, best = elf.get_dwarf_info(), (-1, "")
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        files = program["file_entry"] if program else []
        first_file = 0 if program and program["version"] >= 5 else 1
        for entry in program.get_entries() if program else ():
            state = entry.state
            if state is not None and state.line and best[0] < state.address <= address:
                name = files[state.file - first_file].name.decode(errors="replace")
                best = (state.address, f"{name}:{state.line}")
    return best[1]


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    sys.stdout.buffer.write(nearest(sys.stdin.buffer.read(), int(sys.argv[1])).encode())
