"""Sines, exponentials and the like of every width, and clocks: mpmath's numbers of 200 digits, and the ISA guide."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from gfx950_code import assemble, encodings, launch, run_lanes

from hktune.core.errors import KernelFault

RNG = np.random.default_rng(8)
mpmath.mp.prec = 2000

HALF: dict[str, Callable[[mpmath.mpf], mpmath.mpf]] = {
    "v_sqrt_f16": mpmath.sqrt,
    "v_rsq_f16": lambda x: 1 / mpmath.sqrt(x),
    "v_exp_f16": lambda x: mpmath.power(2, x),
    "v_log_f16": lambda x: mpmath.log(x, 2),
}
WAVES = {"v_sin": mpmath.sin, "v_cos": mpmath.cos}


@pytest.mark.parametrize("name", HALF)
def test_half_precision(name: str) -> None:
    values = np.abs(RNG.standard_normal(64) * 2 + 0.01).astype(np.float16)
    values[:3] = [2.0**-20, 1.0, 2.0**-14]
    wanted = np.array([float(HALF[name](mpmath.mpf(float(x)))) for x in values])
    for form in encodings(f"{name} v20, v10"):
        [found] = run_lanes(form, [values.view(np.uint16).astype(np.uint32)])
        got = found.astype(np.uint16).view(np.float16).astype(np.float64)
        ulp = np.maximum(np.spacing(np.abs(wanted).astype(np.float16)).astype(np.float64), 2.0**-24)
        assert (np.abs(got - wanted) <= ulp).all(), "AMD promises 1 ulp"


def test_powers_of_two_and_exponents_of_half_precision() -> None:
    values = (RNG.standard_normal(64) * 9).astype(np.float16)
    power = RNG.integers(-20, 12, 64).astype(np.int16)
    rows = [each.view(np.uint16).astype(np.uint32) for each in (values, power)]
    for form in encodings("v_ldexp_f16 v20, v10, v11\nv_frexp_exp_i16_f16 v21, v10"):
        scaled, exponent = run_lanes(form, rows, 2).astype(np.uint16)
        wanted = [np.float16(float(x) * 2.0 ** int(p)) for x, p in zip(values, power, strict=True)]
        assert scaled.view(np.float16).tolist() == wanted
        assert exponent.view(np.int16).tolist() == [int(mpmath.frexp(mpmath.mpf(float(x)))[1]) for x in values]


@pytest.mark.parametrize("name", WAVES)
@pytest.mark.parametrize("kind", ["f16", "f32"])
def test_sines_and_cosines_of_turns(name: str, kind: str) -> None:
    dtype = np.float16 if kind == "f16" else np.float32
    values = (RNG.standard_normal(64) * 3).astype(dtype)
    values[:10] = [0.0, 0.25, 0.5, 0.75, 1.0, -0.25, 256.0, -256.0, 300.0, np.inf]
    wanted = [float(WAVES[name](2 * mpmath.pi * mpmath.mpf(float(x)))) for x in values[:8]]
    wanted += [{"v_sin": 0.0, "v_cos": 1.0}[name], np.nan]
    wanted += [float(WAVES[name](2 * mpmath.pi * mpmath.mpf(float(x)))) for x in values[10:]]
    row = values.view(np.uint16).astype(np.uint32) if kind == "f16" else values
    for form in encodings(f"{name}_{kind} v20, v10"):
        [found] = run_lanes(form, [row])
        got = (found.astype(np.uint16).view(np.float16) if kind == "f16" else found.view(np.float32)).astype(float)
        np.testing.assert_allclose(got, np.round(wanted, 15), rtol=0, atol=2.0**-11 if kind == "f16" else 2.0**-22)
        assert np.abs(got[:5]).tolist() == [abs(round(each)) for each in wanted[:5]], "quarters are exact"


def pairs(values: np.ndarray) -> list[np.ndarray]:
    words = values.view(np.uint32).reshape(64, 2)
    return [words[:, 0].copy(), words[:, 1].copy()]


def test_reciprocal_roots_in_double_precision() -> None:
    values = np.abs(RNG.standard_normal(64)) * 10.0 ** RNG.integers(-200, 200, 64)
    for form in encodings("v_rsq_f64 v[20:21], v[10:11]"):
        found = np.ascontiguousarray(run_lanes(form, pairs(values), 2).T).view(np.float64)[:, 0]
        wanted = np.array([float(1 / mpmath.sqrt(mpmath.mpf(float(x)))) for x in values])
        assert (np.abs(found - wanted) <= 2.0**-26 * wanted).all()


def test_segments_of_two_over_pi() -> None:
    """The product of x with all segments is x * 2/pi modulo 2^k: what the reduction of large angles needs."""
    values = np.abs(RNG.standard_normal(64)) * 2.0 ** RNG.integers(0, 900, 64)
    lines = "\n".join(f"v_trig_preop_f64 v[{20 + 2 * i}:{21 + 2 * i}], v[10:11], {i}" for i in range(3))
    found = run_lanes(lines, pairs(values), 6)
    for lane, value in enumerate(values):
        parts = [
            np.array([found[2 * i, lane], found[2 * i + 1, lane]], np.uint32).view(np.float64)[0] for i in range(3)
        ]
        exponent = int(np.frexp(value)[1]) + 1022
        first = max(exponent - 1077, 0)
        with mpmath.workprec(3000):
            bits = int(mpmath.floor(2 / mpmath.pi * mpmath.power(2, 1201)))
        for i, part in enumerate(parts):
            shift = first + 53 * i
            segment = (bits << shift & (1 << 1201) - 1) >> 1148
            scale = -53 - shift + (128 if exponent >= 1968 else 0)
            assert mpmath.mpf(float(part)) == mpmath.ldexp(mpmath.mpf(segment), scale)


def test_clocks_go_on() -> None:
    lines = "s_memtime s[20:21]\ns_waitcnt lgkmcnt(0)\ns_memtime s[22:23]\ns_waitcnt lgkmcnt(0)\n"
    lines += "s_memrealtime s[24:25]\ns_waitcnt lgkmcnt(0)\n"
    found = run_lanes(lines + "\n".join(f"v_mov_b32 v{at}, s{at}" for at in range(20, 26)), (), 6)
    first, second, third = (int(found[at, 0]) + (int(found[at + 1, 0]) << 32) for at in (0, 2, 4))
    assert first < second < third


def test_a_kernel_that_gives_itself_up_says_where() -> None:
    with pytest.raises(
        KernelFault, match=r"s_trap at 0x\w+ .*wave 0 of workgroup \(0, 0, 0\): the kernel stopped itself"
    ):
        launch(
            assemble("s_cmp_eq_u32 s2, 0\ns_cbranch_scc0 other\ns_trap 2\nother:\ns_endpgm"), np.zeros(4), np.zeros(4)
        )
