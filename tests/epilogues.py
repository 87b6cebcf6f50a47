"""Epilogues that operations may have, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from hktune.core.operation import ACTIVATIONS, STEPS


@st.composite
def epilogues(draw: st.DrawFn) -> tuple[str, ...]:
    """Steps in any order, but those that must come first where there are gates, and a residual behind all others."""
    steps = draw(st.lists(st.sampled_from([step for step in STEPS if step != "gated"]), unique=True))
    if "residual" in steps:
        steps = [*(step for step in steps if step != "residual"), "residual"]
    if draw(st.booleans()):
        first = [*draw(st.sampled_from([(), ("bias",)])), *draw(st.sampled_from([(), *zip(ACTIVATIONS)]))]
        steps = [*first, "gated", *(step for step in steps if step not in first)]
    return tuple(steps)
