"""The commands of `hktune`, a file each; cli.py puts them together."""

from __future__ import annotations

from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]
KERNELS = _CHECKOUT / "kernels"
"""The templates of this checkout; the folder is absent where hktune was installed without one."""

DEFAULT_SPACE = _CHECKOUT / "search_spaces" / "gfx950_gemm_bf16.yaml"
