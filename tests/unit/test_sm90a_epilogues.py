"""The sm90a GEMM's epilogues without a GPU: their machine code, and its registers."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from test_sm90a_gemm_bf16 import PING_PONG, SWAPPED, built, config, derived, machine_code, space

from hktune.core.config import Config, Value
from hktune.core.operation import ACTIVATIONS, operation_of

pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'hktune[cuda]'")

SPECIAL_FUNCTIONS = {"relu": [], "gelu": ["EX2"], "gelu_tanh": ["EX2", "RCP"], "silu": ["EX2", "RCP"]}
"""What is asked of the unit of 16 lanes for each number of C."""


@pytest.mark.parametrize(
    ("values", "activation"),
    [*(({}, activation) for activation in ACTIVATIONS), (PING_PONG, "gelu"), (SWAPPED, "silu")],
)
def test_each_number_of_a_tile_is_activated_once(values: dict[str, Value], activation: str, tmp_path: Path) -> None:
    chosen, operation = config(**values), operation_of(f"bf16.nt+{activation}")
    code, needs = machine_code(chosen, tmp_path, operation), derived(chosen)
    numbers = int(needs["fragments"]) * int(needs["accumulators"])
    for name in ("EX2", "RCP", "TANH"):
        # The schedule divides by MUFU.RCP too, as it does without an activation.
        before = machine_code(chosen, tmp_path).count(f"MUFU.{name}")
        expected = numbers * SPECIAL_FUNCTIONS[activation].count(name)
        assert code.count(f"MUFU.{name}") - before == expected, name
    larger = [name for name in code if re.match(r"FMNMX\S*NAN", name)]
    assert len(larger) == numbers * (activation in ("relu", "gelu")), "max(x, 0) that keeps what is no number"


@pytest.mark.parametrize("activation", ["gelu", "silu"])
def test_an_activation_does_not_spill_over_the_space(activation: str) -> None:
    """Random configs, of 60 those three that have the fewest registers to spare."""
    of_operation = space().for_operation(operation_of(f"f16.nn+{activation}"))
    draw = random.Random(activation)
    drawn = [of_operation.sample(draw) for _ in range(60)]
    for chosen in sorted(drawn, key=_registers_to_spare)[:3]:
        assert not built(chosen, operation_of(f"f16.nn+{activation}")).resources.spills, dict(chosen)


def _registers_to_spare(chosen: Config) -> int:
    needs = derived(chosen)
    return int(needs["consumer_budget"]) - int(needs["needed_registers"])
