"""Every exception hktune raises on purpose.

    HktuneError
    ├── InputError          what the caller handed us is wrong (exit code 2)
    │   ├── ShapesError     shapes.yaml
    │   ├── SpaceError      a search space, a config or an expression
    │   ├── TemplateError   a kernel template
    │   ├── TableError      a dispatch table or one of its code objects
    │   └── StoreError      trials.csv or the output directory
    ├── MachineError        what this machine lacks or lost: disk, memory, a process. Never a config's fault
    │   └── ToolchainError  a compiler or its headers are missing or unusable
    └── DeviceError         a device refused a call
        ├── DeviceFull      it has too little free memory: another program may have it
        └── KernelFault     a launched kernel faulted; carries the word for its trial

A message is one line: the rule, the value that broke it, the next step. What happens to one variant
(it does not compile, it is wrong, it hangs) is not an exception but a `outcome.Failure` in its trial. What the machine
fails to do is not in any trial: before a run has begun it ends with exit code 2, and a run that has begun keeps what it
has, writes its table and ends with 1.
"""

from __future__ import annotations

from hktune.core.escaped import escaped, shortened


class HktuneError(Exception):
    """Base of everything hktune raises on purpose. Its text is one line that a terminal prints unchanged, whatever a
    file has put into it."""

    def __init__(self, message: str = "") -> None:
        super().__init__(shortened(escaped(message)))


class InputError(HktuneError):
    """The caller's input breaks a rule; the command line prints the line and exits with 2."""


class ShapesError(InputError):
    """shapes.yaml is missing, malformed or asks for an impossible problem."""


class SpaceError(InputError):
    """A search space, one of its expressions, or a config against it is not legal."""


class TemplateError(InputError):
    """A template's description is malformed, or its source and its fields disagree."""


class TableError(InputError):
    """A dispatch table or one of its code objects cannot be used."""


class StoreError(InputError):
    """The results directory or a file in it cannot be read or written."""


class MachineError(HktuneError):
    """This machine cannot go on: no disk, no memory, or a process that dies whatever it is given."""


class ToolchainError(MachineError):
    """A compiler, or headers that it needs, cannot be found or used."""


class DeviceError(HktuneError):
    """A device refused a call."""


class DeviceFull(DeviceError):
    """A device has less free memory than it was asked for."""


class KernelFault(DeviceError):
    """A launched kernel faulted. `status` is the word for its trial: hazard, timeout or crashed."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail

    def __reduce__(self) -> tuple[type[KernelFault], tuple[str, str]]:
        return (KernelFault, (self.status, self.detail))
