"""`hktune verify`: compile one config, or a kernel of one's own, and prove it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hktune.commands.arguments import (
    add_aiter,
    add_config,
    add_hipkittens,
    add_operation,
    add_problem,
    add_seed,
    refuse_unused,
    settings_of,
)
from hktune.commands.kernel import ARGUMENTS_HELP, add_kernel_options, require_no_kernel, verify_kernel
from hktune.commands.parser import DONE, FAILED, Command
from hktune.core.errors import InputError

if TYPE_CHECKING:
    from hktune.core.config import Config
    from hktune.core.settings import Settings
    from hktune.space import SearchSpace


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune verify`."""
    add_config(parser)
    add_problem(parser, "prove the config on this problem too")
    add_operation(parser, "prove the code of this operation (default: that of --problem, else the first)")
    add_seed(parser, "the random operands")
    add_hipkittens(parser)
    add_aiter(parser)
    add_kernel_options(parser)


def _run(options: argparse.Namespace) -> int:
    """Prove and print what was found; 1 when the config or kernel fails."""
    from hktune.commands.asked_code import space_for
    from hktune.commands.config_words import ConfigWords
    from hktune.core.candidate import Candidate
    from hktune.core.outcome import Failure
    from hktune.report.heartbeat import working
    from hktune.space import load_space, require_legal
    from hktune.tuning.benches.emulated_bench import EmulatedBench

    if options.kernel:
        _require_no_config(options)
        return verify_kernel(options)
    require_no_kernel(options)
    words = ConfigWords(options.config)
    file = options.space or words.space_file()
    space = space_for(load_space(file), options.operation, [options.problem] if options.problem else [])
    config = words.config(space)
    require_legal(space, config, [options.problem])
    if note := words.note(space):
        print(note)
    if not options.config:
        print(f"no CONFIG is given: this is the default config of {space.name}")
    settings = settings_of(options)
    if space.template.language == "cuda":
        return _compile_only(space, config, settings)
    prover = EmulatedBench(file, options.seed, settings, options.hipkittens).prover()
    with working(lambda: f"compiling and proving {config.id[:8]}"):
        attempt = prover(Candidate(config, space.template.operation))
        own = None if attempt.failure or not options.problem else prover.on(config, options.problem)
    failure = own if isinstance(own, Failure) else attempt.failure
    if failure:
        print(f"{failure.status}: {failure.detail}")
        return FAILED
    of_its_own = [space.template.own_proof(options.problem)] if own else []
    proofs = map(str, (*space.template.proof_problems(config), *of_its_own))
    print(f"proved on {'; '.join(proofs)}: relative error {attempt.relative_error:.2e}")
    print(f"takes {attempt.resources}")
    return DONE


def _require_no_config(options: argparse.Namespace) -> None:
    """Raises InputError where what describes a config is given along with a kernel of one's own."""
    refuse_unused(options, ("aiter",), f"is for a config, and --kernel {options.kernel} is none")
    for name in ("space", "problem", "operation"):
        if getattr(options, name):
            rule = f"--{name} is for a config, and --kernel {options.kernel} is none"
            raise InputError(f"{rule}: leave it out; NAME=NUMBER gives sizes, --gemm OPERATION what to compare with")


def _compile_only(space: SearchSpace, config: Config, settings: Settings) -> int:
    """What can be said of a config that no emulator is for; never that it is proved."""
    from hktune.compile import compiler_for
    from hktune.core.candidate import Candidate
    from hktune.workers.prover import CompileOnly

    compile_only = CompileOnly(space.template, compiler_for(space.template.language, settings))
    attempt = compile_only(Candidate(config, space.template.operation))
    if attempt.failure:
        print(f"{attempt.failure.status}: {attempt.failure.detail}")
    else:
        print(f"compiled, not proved: the emulator is for gfx950, not {space.arch.name}: hktune bench proves on a GPU")
        print(f"takes {attempt.resources}")
    return FAILED


_ABOUT = f"""Needs no GPU: the emulator executes the kernel, and every element that it writes is judged.

{ARGUMENTS_HELP}"""

COMMAND = Command(
    "verify",
    "compile one config, or a kernel of your own, and prove it",
    _add_options,
    _run,
    examples=(
        "hktune verify block_m=256 k_step=64 --problem 4096x4096x4096",
        "hktune verify out/gfx950-emulated:5357f7f5",
        "hktune verify --kernel mine.hip --args 'x:f32[n] y:out:f32[n] n' n=512",
    ),
    failed="the config or the kernel fails",
    warned="only warnings of a kernel",
    about=_ABOUT,
)
