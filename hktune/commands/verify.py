"""`hktune verify`: compile one config, or a kernel of one's own, and prove it."""

from __future__ import annotations

import argparse
import os

from hktune.commands.arguments import add_config, add_hipkittens, add_problem, add_seed
from hktune.commands.kernel import add_kernel_options, verify_kernel
from hktune.commands.parser import DONE, FAILED, Command
from hktune.settings import Settings


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune verify`."""
    add_config(parser)
    add_problem(parser, "prove the config on this problem too")
    add_seed(parser, "the random operands")
    add_hipkittens(parser)
    add_kernel_options(parser)


def _run(options: argparse.Namespace) -> int:
    """Prove and print what was found; 1 when the config or kernel fails."""
    from hktune.bench import EmulatedBench
    from hktune.model import Failure
    from hktune.space import load_space, require_legal

    if options.kernel:
        return verify_kernel(options)
    space = load_space(options.space)
    config = space.parse(options.config)
    require_legal(space, config, [options.problem])
    settings = Settings.from_environment(os.environ)
    prover = EmulatedBench(options.space, options.seed, settings, options.hipkittens)()
    attempt = prover(config)
    own = None if attempt.failure or not options.problem else prover.on(config, options.problem)
    failure = own if isinstance(own, Failure) else attempt.failure
    if failure:
        print(f"{failure.status}: {failure.detail}")
        return FAILED
    proofs = [*map(str, space.template.proof_problems(config)), *([str(options.problem)] if own else [])]
    print(f"proved on {'; '.join(proofs)}: relative error {attempt.relative_error:.2e}")
    print(f"{attempt.resources}")
    return DONE


COMMAND = Command(
    "verify",
    "compile one config, or a kernel of your own, and prove it",
    _add_options,
    _run,
    examples=(
        "hktune verify block_m=256 k_step=64 --problem 4096x4096x4096",
        "hktune verify --kernel mine.hip --args 'x:f32[n] y:out:f32[n] n' n=512",
    ),
    failed="the config or the kernel fails",
    about="Needs no GPU: the emulator executes the kernel, and every element that it writes is judged.",
)
