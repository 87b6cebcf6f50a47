"""Kernel templates: a source with named fields, and how a config fills and launches it. May import core."""

from hktune.template.template import Template, load_template

__all__ = ["Template", "load_template"]
