"""The commands of `hktune`, a file each; cli.py puts them together. May import every room but runtime."""
