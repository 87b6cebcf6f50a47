"""AITER's kernels that share k, traced as they run for a C of bf16.

Such a kernel rounds after each share, which is no right C, so the templates describe a C of float32 alone. What AITER's
tuner timed in bf16 rows is the other path all the same, with half the bytes to clear and half the atomics. Here it is
executed on the emulator for its instructions, and nothing is proved.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from hktune.core.arch import GFX950
from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.operation import operation_of
from hktune.core.variant import CodeObject
from hktune.device.emulated import EmulatedDevice
from hktune.emulator.clock import launch_time
from hktune.emulator.clock.profile import Profile
from hktune.template.template import Template
from hktune.template.template_schema import ArgumentDescription, TemplateDescription
from hktune.verify.proof import verify
from hktune.workers.prover import Prover, compiled

BF16 = operation_of("bf16.nt")
WRITES_BF16 = ArgumentDescription(name="writes_bf16", kind="u32", offset_bytes=288, value=1)
"""How these kernels are asked for bf16: the same argument that the templates of their unsplit relatives pass."""


def traced(prover: Prover, config: Config, folder: Path) -> Profile | None:
    """The profile of the kernel of `config`, of the template in `folder`, with a C of bf16; None where it does not
    run."""
    operation = prover.template.operation
    code = compiled(prover.template, prover.compiler, Candidate(config, operation), prover.deadline_s)
    if not isinstance(code, CodeObject):
        return None
    template = _with_bf16(folder)
    proof, *_ = template.proof_problems(config)
    launch, tile = template.launch(config, proof.problem), template.tile(config)
    device = EmulatedDevice(GFX950.name, deadline_s=prover.deadline_s, record_trace=True)
    verify(device, device.load(code.data, code.symbol), launch, proof.problem, prover.seed)
    if device.trace is None:
        return None
    steps = int(launch_time.k_steps(proof.problem, launch, tile))
    return launch_time.profile(device.trace, code.resources, launch, tile, steps, GFX950)


def _with_bf16(folder: Path) -> Template:
    data = (folder / "template.yaml").read_bytes()
    description = msgspec.yaml.decode(data, type=TemplateDescription)
    arguments = sorted((*description.arguments, WRITES_BF16), key=lambda each: each.offset_bytes or 0)
    described = msgspec.structs.replace(description, operations=(str(BF16),), arguments=tuple(arguments))
    return Template(described, data, b"", folder)
