"""Kernel templates: a source with named fields, and the description of how a config fills and launches it."""

from hktune.template.template import Template, load_template

__all__ = ["Template", "load_template"]
