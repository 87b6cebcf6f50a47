"""The subcommands of `hktune` that bring options of their own; cli.py puts them together."""

from __future__ import annotations

from pathlib import Path

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
"""The templates of this checkout; the folder is absent where hktune was installed without one."""
