"""A dispatch table as source code. May import every room but runtime, tuning, report, session and commands."""

from hktune.export.inline import FORMS, export_inline
from hktune.export.lint import Habit, forbidden_habits

__all__ = ["FORMS", "Habit", "export_inline", "forbidden_habits"]
