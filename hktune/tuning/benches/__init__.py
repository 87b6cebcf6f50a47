"""What proves and times the variants of a run, for each kind of device, and what it takes its objects from."""
