"""One run: loop, rows, confirmation, end. May import every room but runtime, export, report, session and commands."""
