"""Linears of a model made one call: those of the same input, those with a step behind, in modules and in graphs."""
