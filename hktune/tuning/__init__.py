"""One run: its loop, its rows, its confirmation and its end. May touch every room but report, commands and export."""
