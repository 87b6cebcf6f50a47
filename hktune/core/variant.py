"""A template rendered with one config, and what a compiler makes of it."""

from __future__ import annotations

from dataclasses import dataclass

from hktune.core.config import Config


@dataclass(frozen=True)
class ObjectFile:
    """A code object that others have built: its name, its bytes' sha256, and where it may be, as
    `template_schema.ObjectsDescription` has it. `own_folder` is the folder of the template that describes it."""

    name: str
    sha256: str
    distribution: str
    extra: str
    folder: str
    checkout: str
    own_folder: str


@dataclass(frozen=True)
class Variant:
    """A template rendered with one config: everything a compiler needs, and nothing about a problem's size. `file` is
    what a template of the language `object` has instead of source."""

    template: str
    template_sha256: str
    arch: str
    language: str
    symbol: str
    source: str
    config: Config
    file: ObjectFile | None = None


@dataclass(frozen=True)
class Resources:
    """What a code object asks of a compute unit, read back from the object itself."""

    vgprs: int
    agprs: int
    sgprs: int
    vgpr_spills: int
    sgpr_spills: int
    lds_bytes: int
    scratch_bytes: int
    max_workgroup_size: int

    @property
    def spills(self) -> int:
        return self.vgpr_spills + self.sgpr_spills

    def __str__(self) -> str:
        registers = f"{self.vgprs} VGPRs, {self.agprs} AGPRs, {self.sgprs} SGPRs, {self.spills} spills"
        return f"{registers}; {self.lds_bytes} bytes of static LDS, {self.scratch_bytes} of scratch"


@dataclass(frozen=True)
class CodeObject:
    """A compiled variant: loadable bytes, their identity, the kernel's symbol and what it needs."""

    data: bytes
    sha256: str
    symbol: str
    arch: str
    resources: Resources
    compiler: str
    compile_s: float
