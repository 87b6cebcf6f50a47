"""After the search: what was best is measured again, in rounds that kernels share, and what else is measured of it."""
