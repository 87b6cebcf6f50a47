"""One run: its loop, rows, confirmation and end. May import every room but runtime, export, report and commands."""
