"""The version of hktune, for tables, environments and the command line."""

__version__ = "0.1.0"
