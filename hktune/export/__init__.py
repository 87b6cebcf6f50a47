"""A dispatch table as source code of other shapes; the one there is: a single PyTorch file with its kernels inline."""

from hktune.export.inline import FORMS, export_inline
from hktune.export.lint import Habit, forbidden_habits

__all__ = ["FORMS", "Habit", "export_inline", "forbidden_habits"]
