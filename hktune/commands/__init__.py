"""The subcommands of `hktune` that bring options of their own; cli.py puts them together."""
