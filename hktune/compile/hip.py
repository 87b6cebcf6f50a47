"""HIP source to a gfx950 code object."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from hktune.compile.diagnostics import first_error
from hktune.compile.hipkittens import ENTRY, HipKittens
from hktune.compile.precompiled import PrecompiledHeader, starts_with_prefix
from hktune.compile.process import Finished, run_to_end
from hktune.compile.scratch_build import ScratchBuild
from hktune.compile.toolchain import HIP_HEADERS, HipToolchain
from hktune.core.attended import attended_s
from hktune.core.errors import ToolchainError
from hktune.core.outcome import Failure
from hktune.core.variant import CodeObject, Variant
from hktune.objects.code_object import read_code_object

OBJECT_NAME = "kernel.hsaco"


class HipCompiler:
    """Compiler for variants whose language is hip.

    Works in a private temporary folder and with relative names, so equal sources give equal bytes wherever they are
    compiled. `cache_dir` keeps the precompiled headers; without one every compile parses them. `find_again` is for
    headers that went away after they were found, as those in a cache may.
    """

    def __init__(
        self,
        toolchain: HipToolchain,
        headers: HipKittens,
        cache_dir: Path | None = None,
        find_again: Callable[[], HipKittens] | None = None,
    ) -> None:
        self._toolchain = toolchain
        self._headers = headers
        self._find_again = find_again
        flags = hashlib.sha256("\0".join([*toolchain.flags, *toolchain.emit]).encode()).hexdigest()[:12]
        self.identity = f"{toolchain.identity} hipkittens={headers.sha256[:12]} flags={flags}"
        self._cache_dir = cache_dir / "precompiled" if cache_dir and toolchain.precompile else None

    def compile(self, variant: Variant, deadline_s: float) -> CodeObject | Failure:
        """Build `variant`; see Compiler."""
        return self._scratch_build(variant)(variant, deadline_s)

    def object_of(self, variant: Variant, deadline_s: float) -> bytes | Failure:
        """The code object of `variant`, whose symbol it need not have. Raises ToolchainError."""
        return self._scratch_build(variant).bytes_of(variant, deadline_s)

    def _scratch_build(self, variant: Variant) -> ScratchBuild:
        def run(source: Path, seconds: float) -> Finished | None:
            return self._build(variant, source, attended_s() + seconds)

        def verdict(finished: Finished, name: str) -> str:
            return first_error(finished.stderr, name, self._headers.include, finished.status)

        return ScratchBuild(".hip", OBJECT_NAME, self.identity, read_code_object, run, verdict)

    def _build(self, variant: Variant, source: Path, until: float) -> Finished | None:
        """Leave OBJECT_NAME in the folder of `source`, first with precompiled headers; None past `until`.

        A failure with precompiled headers is only believed when it repeats without them: if it does not, they were
        damaged, and go. Headers that went away are looked for again.
        """
        finished = self._build_once(variant, source, until)
        if finished is not None and finished.status != 0 and self._headers_came_back():
            return self._build_once(variant, source, until)
        return finished

    def _headers_came_back(self) -> bool:
        """Whether headers that were gone are there again, the same ones."""
        if self._find_again is None or (self._headers.include / ENTRY).is_file():
            return False
        found = self._find_again()
        if found.sha256 != self._headers.sha256:
            raise ToolchainError(f"{self._headers.origin}: the headers changed while they were in use: run again")
        self._headers = found
        return True

    def _build_once(self, variant: Variant, source: Path, until: float) -> Finished | None:
        argv = self._compile_argv(variant.arch)
        if self._cache_dir is not None and starts_with_prefix(variant.source):
            precompiled = PrecompiledHeader(argv, self._toolchain.precompile, self.identity, self._cache_dir)
            flags = precompiled.flags(until - attended_s())
            finished = self._compile_and_link([*argv, *flags], source, until) if flags else None
            if finished is not None and finished.status == 0:
                return finished
            repeated = self._compile_and_link(argv, source, until)
            if flags and repeated is not None and repeated.status == 0:
                precompiled.discard()
            return repeated
        return self._compile_and_link(argv, source, until)

    def _compile_and_link(self, argv: Sequence[str], source: Path, until: float) -> Finished | None:
        compile_argv = [*argv, *self._toolchain.emit, "-o", "kernel.o", source.name]
        finished = run_to_end(compile_argv, source.parent, until - attended_s())
        if finished is None or finished.status != 0:
            return finished
        link_argv = [*self._toolchain.linker, "kernel.o", "-o", OBJECT_NAME]
        return run_to_end(link_argv, source.parent, until - attended_s())

    def _compile_argv(self, arch: str) -> list[str]:
        """The compiler's command, without input and output. File names that a source asks for by __FILE__ lose the
        folders of this machine."""
        toolchain, include = self._toolchain, self._headers.include
        return [
            *toolchain.driver,
            *toolchain.flags,
            f"--offload-arch={arch}",
            f"-ffile-prefix-map={include}=hipkittens",
            f"-ffile-prefix-map={HIP_HEADERS}=hip",
            *toolchain.includes,
            "-I",
            str(include),
        ]
