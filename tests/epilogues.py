"""Epilogues that operations may have, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from hktune.core.operation import ACTIVATIONS, GATES, RESIDUALS, STEPS


@st.composite
def epilogues(draw: st.DrawFn) -> tuple[str, ...]:
    """Steps in any order, but those that must come first (where there are gates), and a residual behind all others."""
    placed = ("alpha", *GATES, *RESIDUALS)
    steps = draw(st.lists(st.sampled_from([step for step in STEPS if step not in placed]), unique=True))
    steps += draw(st.sampled_from([(), *zip(RESIDUALS)]))
    if draw(st.booleans()):
        first = [*draw(st.sampled_from([(), ("bias",)])), *draw(st.sampled_from([(), *zip(ACTIVATIONS)]))]
        steps = [*first, draw(st.sampled_from(list(GATES))), *(step for step in steps if step not in first)]
    return (*draw(st.sampled_from([(), ("alpha",)])), *steps)
