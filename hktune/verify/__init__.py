"""Proof: every element, before anything is timed. May import core, objects, space, template and the other seams.

`hktune.verify(kernel, grid, block, args)` judges any kernel (`called_kernel`). A name of a package that is called like
one of its folders must be that folder, so the folder can be called.
"""

import sys
from types import ModuleType
from typing import Any

from hktune.verify.proof import Proof, verify
from hktune.verify.reference import Answer, Mismatch, Operands, compare, random_operands

_OF_KERNELS = ("GlobalLayout", "KernelRefuted", "KernelResult", "global_layout")
__all__ = ["Answer", "Mismatch", "Operands", "Proof", "compare", "random_operands", "verify"]


class _Called(ModuleType):
    """This module, as the function that users know by its name."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        from hktune.verify.called_kernel import verify_kernel

        return verify_kernel(*args, **options)

    def __getattr__(self, name: str) -> Any:
        """What users name of a kernel's judge: imported at first use."""
        if name not in _OF_KERNELS:
            raise AttributeError(f"module 'hktune.verify' has no attribute {name!r}")
        from hktune.verify import called_arguments, called_kernel

        return getattr(called_kernel, name, None) or getattr(called_arguments, name)


sys.modules[__name__].__class__ = _Called
