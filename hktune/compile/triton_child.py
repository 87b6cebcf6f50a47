"""A process that compiles one Triton kernel for an AMD GPU: `python triton_child.py SOURCE SYMBOL ARCH OBJECT`.

SOURCE is a Python module with the kernel, and what triton.compile is given, by the parameters' names: SIGNATURE (types
of arguments), CONSTANTS (values of each tl.constexpr), ATTRIBUTES (what Triton may take for granted of an argument),
OPTIONS (num_warps and so on), and KNOBS, which users set as variables of the environment (those of triton.knobs.amd).

Whatever steers Triton by the environment is taken out of it, so that an object depends on SOURCE and Triton alone, and
all that Triton keeps goes to the working directory. Errors are printed as SOURCE:LINE:COLUMN: error: MESSAGE. Imports
nothing of hktune.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.pop(0)  # this folder, whose files are no top-level modules

STEERING = ("TRITON_", "AMDGCN_", "MLIR_", "LLVM_", "DISABLE_LLVM_OPT", "USE_IR_LOC")
"""How the variables begin that Triton's `knobs.py` and its passes read."""

LDS = r"^(\s*\.(?:amdhsa_)?group_segment_fixed_size:?\s+)(\d+)$"
"""The lines of an assembly that say how much LDS the kernel has: its descriptor's and its metadata's."""

WAVE_SIZE = 64
GIVEN = ("SIGNATURE", "CONSTANTS", "ATTRIBUTES", "OPTIONS", "KNOBS")


class Refused(Exception):
    """What is wrong with the source, where it is no exception of Triton's."""


def main(source: str, symbol: str, arch: str, target: str) -> int:
    """Compile the file `source` into the file `target`; 1 where it is refused."""
    steer()
    triton = importlib.import_module("triton")
    try:
        image = compiled(triton, loaded(source), symbol, arch)
    except (OSError, MemoryError, ImportError):
        raise  # of this machine
    except Exception as error:
        line, message = verdict(error, source)
        print(f"{source}:{line}:1: error: {message}", file=sys.stderr)
        return 1
    Path(target).write_bytes(image)
    return 0


def steer() -> None:
    """Set the environment that Triton reads: no debug lines, which name folders of this machine, and no files but
    here."""
    for name in [name for name in os.environ if name.startswith(STEERING)]:
        del os.environ[name]
    here = str(Path.cwd())
    os.environ |= {"TRITON_HOME": here, "TRITON_CACHE_DIR": f"{here}/cache", "TRITON_DISABLE_LINE_INFO": "1"}


def loaded(source: str) -> ModuleType:
    """The module in the file `source`, known to Python by that name alone: it gets into error messages."""
    module = sys.modules["hktune_triton_source"] = ModuleType("hktune_triton_source")
    module.__file__ = source
    exec(compile(Path(source).read_bytes(), source, "exec"), module.__dict__)
    return module


def compiled(triton: ModuleType, module: ModuleType, symbol: str, arch: str) -> bytes:
    """The code object of the kernel `symbol`. Raises what Triton raises, and Refused."""
    for name in (symbol, *GIVEN):
        if not hasattr(module, name):
            raise Refused(f"it has no {name}: a source has the kernel, {', '.join(GIVEN)}")
    function = getattr(module, symbol)
    signature = module.SIGNATURE | dict.fromkeys(module.CONSTANTS, "constexpr")
    attributes = {(function.arg_names.index(name),): given for name, given in module.ATTRIBUTES.items()}
    compiler = importlib.import_module("triton.compiler")
    code = compiler.ASTSource(function, signature=signature, constexprs=module.CONSTANTS, attrs=attributes)
    gpu = importlib.import_module("triton.backends.compiler").GPUTarget("hip", arch, WAVE_SIZE)
    for name, value in module.KNOBS.items():
        if not hasattr(triton.knobs.amd, name):
            raise Refused(f"triton {triton.__version__} has no knob {name}")
        setattr(triton.knobs.amd, name, value)
    triton.knobs.runtime.add_stages_inspection_hook = static_lds
    kernel = triton.compile(code, target=gpu, options=module.OPTIONS)
    for memory in ("global_scratch", "profile_scratch"):
        needed_bytes = getattr(kernel.metadata, f"{memory}_size", 0)  # Triton 3.7 says nothing of it
        if needed_bytes:
            raise Refused(f"it needs {needed_bytes} bytes of {memory} for each workgroup, which no launch here gives")
    return bytes(kernel.asm["hsaco"])


def static_lds(*asked: Any) -> tuple[str, str]:
    """Triton's hook of the stages of a compile: the object says how much LDS its kernel needs.

    Triton leaves it at 0 and asks for the bytes at each launch, by a number that it keeps apart from the object. The
    instructions stay as they are. Without arguments it is asked what it adds to the key of Triton's own cache.
    """
    if asked:
        _, stages, *_ = asked
        assemble = stages["hsaco"]
        stages["hsaco"] = lambda text, metadata: assemble(with_lds(text, metadata["shared"]), metadata)
    return "static_lds", "static_lds"


def with_lds(assembly: str, lds_bytes: int) -> str:
    """`assembly` with `lds_bytes` more of LDS in the kernel's descriptor and metadata."""
    text, found = re.subn(LDS, lambda line: f"{line[1]}{int(line[2]) + lds_bytes}", assembly, flags=re.MULTILINE)
    if found != 2:
        raise Refused(f"its assembly says in {found} places how much LDS it needs: 2 were expected")
    return text


def verdict(error: BaseException, source: str) -> tuple[int, str]:
    """The line of `source` that is to blame for `error`, 1 where none is known, and what is wrong in one line."""
    while error.__cause__ is not None and hasattr(error.__cause__, "node"):  # inside a function that the kernel calls
        error = error.__cause__
    said = getattr(error, "error_message", None) or str(error) or type(error).__name__
    message = next(line.strip() for line in [*said.splitlines(), type(error).__name__] if line.strip())
    if isinstance(error, SyntaxError):
        return error.lineno or 1, message
    node, text = getattr(error, "node", None), getattr(error, "src", None)
    if node is not None and isinstance(text, str):
        before, found, _ = Path(source).read_text(encoding="utf-8").partition(text)
        return before.count("\n") * bool(found) + node.lineno, message
    own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == source]
    return own[-1] or 1 if own else 1, message


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
