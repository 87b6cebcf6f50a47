"""Kernel templates: a source with named fields, and how a config fills and launches it. May import core."""

from hktune.template.template import Template, load_template
from hktune.template.templates import Templates

__all__ = ["Template", "Templates", "load_template"]
