"""A run on the nodes of a Ray cluster: its benches, its GPUs and its loops there."""
