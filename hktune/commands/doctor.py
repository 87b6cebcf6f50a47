"""`hktune doctor`: what was found on this machine, and what to type for the rest."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace

from hktune.commands.arguments import add_hipkittens
from hktune.commands.parser import DONE, FAILED, Command
from hktune.core.settings import Settings


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `hktune doctor`."""
    add_hipkittens(parser)


def _run(options: argparse.Namespace) -> int:
    """Look, and print one line for each thing looked for."""
    from hktune.report.console import make_console
    from hktune.report.machine import examine
    from hktune.report.tables import print_findings

    settings = Settings.from_environment(os.environ)
    found = examine(replace(settings, hipkittens_root=options.hipkittens or settings.hipkittens_root))
    print_findings(make_console(), found.findings)
    if found.lacking:
        print(f"hktune tune cannot run here yet; needed: {', '.join(found.lacking)}")
        return FAILED
    print(f"hktune tune can run here, on the {_DEVICES[found.device]}")
    return DONE


_DEVICES = {"hip": "AMD GPU", "cuda": "NVIDIA GPU", "emulated": "emulated GPU"}


COMMAND = Command(
    "doctor",
    "say what was found on this machine, and what to type for the rest",
    _add_options,
    _run,
    examples=("hktune doctor",),
    failed="something that hktune tune needs is missing",
)
