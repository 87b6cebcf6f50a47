"""Stopwatches, baselines, comparisons. May import core, objects, space, template and the other seams."""
