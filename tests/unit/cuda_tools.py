"""NVIDIA's disassembler, for tests that look at machine code."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


def nvdisasm() -> Path:
    """The program in the package nvidia-cuda-nvdisasm; skips the test where that is absent."""
    package = importlib.util.find_spec("nvidia")
    roots = package.submodule_search_locations if package else None
    for root in roots or ():
        for program in Path(root).glob("cu*/bin/nvdisasm"):
            return program
    pytest.skip("pip install nvidia-cuda-nvdisasm")
