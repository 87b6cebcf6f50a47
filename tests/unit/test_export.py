"""`hktune export`: the module as its users need it, its kernels built for gfx950 and run, its choice executed."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import types
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import host_library
import pytest
import torch
from gemm_bf16_variants import ROOT, built, compiled, proof, space
from naive_gemm import reseal
from torch.utils import cpp_extension

from hktune.cli import main
from hktune.core.config import Config
from hktune.core.errors import SpaceError, TableError
from hktune.core.escaped import escaped
from hktune.core.identity import Identity
from hktune.core.launch_rule import LaunchRule
from hktune.core.operation import BF16_NT_BIAS, operation_of
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.core.variant import Variant
from hktune.dispatch import write_table
from hktune.export import FORMS, export_inline, forbidden_habits
from hktune.export.lint import forbidden_python
from hktune.tables import build_table
from hktune.verify import Proof

KERNELS = ROOT / "kernels"
SPACE = ROOT / "search_spaces" / "gfx950_gemm_bf16.yaml"
IDENTITY = Identity("emulated", "gfx950", "emulated gfx950", 256)
STAND_IN = (Path(__file__).parent / "export_stand_in.h").read_text()
F16_BIAS = operation_of("f16.nt+bias")
SMALL = {"block_m": 64, "block_n": 64, "warps_m": 2, "warps_n": 2, "split": 1}
TUNED = {
    Problem(256, 512, 256): {},
    Problem(64, 512, 256, BF16_NT_BIAS): SMALL,
    Problem(16, 128, 2048): {**SMALL, "split_k": 4},
}


@lru_cache
def configs() -> dict[Problem, Config]:
    return {problem: space().config(values) for problem, values in TUNED.items()}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results directory of three shapes by three kernels."""
    return tabled(configs(), tmp_path_factory.mktemp("export"))


def tabled(tuned: Mapping[Problem, Config], folder: Path) -> Path:
    """`folder` with a table in it that says what was `tuned`."""
    template = space().template
    objects, trials = {}, []
    for problem, config in tuned.items():
        assert space().is_legal(config, problem), config
        code = compiled(space().for_operation(problem.operation).template.render(config))
        objects[code.sha256] = code.data
        trials.append(
            Trial(
                trial=0, m=problem.m, n=problem.n, k=problem.k, operation=problem.operation,
                config_id=config.id, config=config.json, status=Status.OK, source=Source.MODELLED, time_us=1.0,
                object_sha256=code.sha256, template=template.name, template_sha256=template.sha256, target="gfx950",
            )
        )  # fmt: skip

    def launch_of(row: Trial) -> tuple[str, LaunchRule]:
        config = Config.from_json(row.config)
        return template.symbol(config), space().launch_rule(config, row.problem)

    write_table(build_table(trials, launch_of, IDENTITY, "clang", "0.1.0", "now"), objects, folder)
    return folder


@pytest.fixture(scope="module")
def source(directory: Path) -> str:
    return source_of(directory)


def source_of(directory: Path) -> str:
    """What the module has compiled."""
    asked: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpp_extension, "load_inline", lambda **options: asked.update(options))
        exec(export_inline(directory, SPACE, "matmul"), {})
    return str(asked["cuda_sources"])


def test_its_kernels_build_in_one_source_with_the_host_half_parsed_and_run_right(source: str) -> None:
    source = without_torch(source)
    for problem, config in configs().items():
        name, launch = f"gemm_{config.id}", space().template.launch(config, problem)
        same_launch = (
            f"static_assert({name}::LDS_BYTES == {launch.dynamic_lds_bytes});\n"
            f"static_assert({name}::NUM_THREADS == {launch.block[0]});\n"
        )
        code = compiled(
            Variant("export", "0" * 64, "gfx950", "hip", f"{name}_kernel", STAND_IN + source + same_launch, config)
        )
        for shape in (problem, Problem(70, 72, 264, BF16_NT_BIAS)):
            if space().is_legal(config, shape):
                assert isinstance(proof(code, space().template.launch(config, shape), shape), Proof)
        assert code.resources == built(config).resources


def without_torch(source: str) -> str:
    """`source` without the headers that STAND_IN stands for."""
    for header in ("torch/extension.h", "ATen/cuda/CUDAContext.h", "c10/cuda/CUDAGuard.h"):
        assert source.count(f"#include <{header}>\n") == 1
        source = source.replace(f"#include <{header}>\n", "")
    return source


def test_a_table_of_float16_becomes_kernels_of_float16(tmp_path: Path) -> None:
    problem, config = Problem(64, 512, 256, F16_BIAS), space().config(SMALL)
    folder = tabled({problem: config}, tmp_path)
    text, source = export_inline(folder, SPACE, "linear"), without_torch(source_of(folder))
    assert "C = A @ B in float16" in text
    assert "dtype=torch.float16" in text
    assert "bfloat16" not in text
    assert "scalar_type() == at::kHalf" in source
    code = compiled(Variant("export", "0" * 64, "gfx950", "hip", f"gemm_{config.id}_kernel", STAND_IN + source, config))
    assert isinstance(proof(code, space().template.launch(config, problem), problem), Proof)


def test_of_a_table_of_two_dtypes_one_is_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = space().config(SMALL)
    folder = tabled({Problem(64, 512, 256, operation): config for operation in (F16_BIAS, BF16_NT_BIAS)}, tmp_path)
    with pytest.raises(TableError, match=r"choose bf16\.nt or f16\.nt with --operation") as caught:
        export_inline(folder, SPACE, "matmul")
    assert "\n" not in str(caught.value)
    out = tmp_path / "model_new.py"
    for operation, dtype in (("f16.nt", "float16"), ("f16.nt+bias", "float16"), ("bf16.nt", "bfloat16")):
        assert main(["export", str(folder), "--operation", operation, "-o", str(out)]) == 0
        text = out.read_text()
        assert f"C = A @ B in {dtype} on gfx950" in text
        assert f"The shapes are of {operation.removesuffix('+bias')}+bias; their times are modelled." in text
    capsys.readouterr()
    assert main(["export", str(folder), "--operation", "f16.nn", "-o", str(out)]) == 2
    said = "f16.nn is not in this table: this table has bf16.nt, f16.nt: choose bf16.nt or f16.nt with --operation\n"
    assert said in capsys.readouterr().err


def test_a_kernel_with_an_activation_is_not_taken_for_one_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, activated = space().config(SMALL), operation_of("bf16.nt+bias+gelu")
    folder = tabled({Problem(64, 512, 256, operation): config for operation in (activated, BF16_NT_BIAS)}, tmp_path)
    with pytest.raises(TableError, match=r"has bf16\.nt, bf16\.nt\+gelu: choose bf16\.nt with --operation"):
        export_inline(folder, SPACE, "matmul")
    out = tmp_path / "model_new.py"
    assert main(["export", str(folder), "--operation", "bf16.nt", "-o", str(out)]) == 0
    assert "The shapes are of bf16.nt+bias; their times are modelled." in out.read_text()
    capsys.readouterr()
    assert main(["export", str(folder), "--operation", "bf16.nt+gelu", "-o", str(out)]) == 2
    rule = "one file holds kernels of one operation, bf16.nt or f16.nt: not bf16.nt+gelu"
    assert f"{rule}: choose bf16.nt with --operation\n" in capsys.readouterr().err
    alone = tabled({Problem(64, 512, 256, activated): config}, tmp_path / "alone")
    with pytest.raises(TableError, match=r"this table has bf16\.nt\+gelu: serve it by hktune\.load"):
        export_inline(alone, SPACE, "matmul")


@pytest.mark.parametrize("operation", ["f16.nn", "bf16.nt->f32", "f32.nt"])
def test_an_operation_that_the_template_cannot_do_is_one_line(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], operation: str
) -> None:
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    reseal(tmp_path, lambda text: text.replace('"bf16.nt', f'"{operation}'))
    assert main(["export", str(tmp_path), "-o", str(tmp_path / "x.py")]) == 2
    said = capsys.readouterr().err
    assert operation in said
    assert said.count("\n") == 1


HOST_CHOICE = """
#include <cmath>
#include <cstdint>
#include <limits>
{kernels}
{choice}
extern "C" int choose(int64_t m, int64_t n, int64_t k, bool biased) {{ return choose_kernel(m, n, k, biased); }}
extern "C" int64_t workspace(int kernel, int64_t m, int64_t n) {{ return workspace_bytes(kernel, m, n); }}
extern "C" bool can(int kernel, int64_t m, int64_t n, int64_t k) {{ return can_run(kernel, m, n, k); }}
"""


@pytest.fixture(scope="module")
def choice(source: str, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The module's choice among its kernels, compiled for this machine: the kernels themselves left out."""
    kernels = []
    for name in re.findall(r"^namespace (gemm_\w{16}) \{$", source, re.MULTILINE)[::2]:
        config = next(config for config in configs().values() if name == f"gemm_{config.id}")
        split = config["split"]
        numbers = {
            "BLOCK_M": config["block_m"], "BLOCK_N": config["block_n"], "K_STEP": config["k_step"],
            "SPLIT_K": config["split_k"], "PART_M": config["block_m"] // split, "PART_N": config["block_n"] // split,
            "NUM_WARPS": config["warps_m"] * config["warps_n"], "COUNTERS": 16384, "VECTOR": 8,
        }  # fmt: skip
        generated = source.split(f"namespace {name} {{\nconstexpr int64_t ceil_div", 1)[1]
        generated = generated.split("inline void launch", 1)[0]
        generated = re.sub(r"constexpr int64_t LDS_BYTES[^\n]*\n", "", generated)
        constants = "\n".join(f"constexpr int {key} = {value};" for key, value in numbers.items())
        kernels.append(f"namespace {name} {{\n{constants}\nconstexpr int64_t ceil_div{generated}}}")
    switches = source[source.index("inline bool can_run(int kernel") : source.index("inline void launch(int kernel")]
    table = source[source.index("struct table_row") : source.index("// Kernels read 16 bytes at once")]
    cpp = tmp_path_factory.mktemp("choice") / "choice.cpp"
    cpp.write_text(HOST_CHOICE.format(kernels="\n".join(kernels), choice=switches + table))
    library = ctypes.CDLL(str(host_library.built(cpp, cpp.with_suffix(".so"), "-std=c++20")))
    library.choose.argtypes = [*[ctypes.c_int64] * 3, ctypes.c_bool]
    library.can.argtypes = [ctypes.c_int, *[ctypes.c_int64] * 3]
    library.workspace.argtypes, library.workspace.restype = [ctypes.c_int, *[ctypes.c_int64] * 2], ctypes.c_int64
    library.can.restype = ctypes.c_bool
    return library


def test_it_picks_the_kernel_of_the_shape_else_of_the_nearest_that_can(choice: ctypes.CDLL) -> None:
    order = sorted({config.id for config in configs().values()})
    for problem, config in configs().items():
        biased = problem.operation.has_bias
        assert choice.choose(problem.m, problem.n, problem.k, biased) == order.index(config.id)
        assert choice.choose(problem.m + 1, problem.n + 8, problem.k, not biased) == order.index(config.id)
    split = order.index(configs()[Problem(16, 128, 2048)].id)
    assert choice.choose(16, 128, 64, False) not in (split, -1)  # too short for four to share
    assert choice.choose(16, 128, 100, False) == -1


def test_its_rules_and_sizes_are_the_spaces(choice: ctypes.CDLL) -> None:
    order = sorted({config.id for config in configs().values()})
    for config in configs().values():
        at = order.index(config.id)
        for m in (1, 64, 1000, 70_000):
            for n in (8, 500, 30_000):
                for k in (8, 64, 200, 4096, 1 << 20):
                    problem = Problem(m, n, k)
                    legal = space().is_legal(config, problem)
                    assert choice.can(at, m, n, k) == legal, (problem, config)
                    if legal:
                        assert choice.workspace(at, m, n) == space().template.launch(config, problem).workspace_bytes


@pytest.mark.parametrize("form", FORMS)
def test_the_module_computes_what_torch_does(directory: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """Its Python half, with torch in the place of the compiled one."""
    asked: dict[str, Any] = {}
    bound = types.SimpleNamespace(
        gemm_forward=lambda a, bt, m, n: (a @ bt.T)[:m, :n], gemm_bias_forward=lambda a, bt, bias: a @ bt.T + bias
    )
    monkeypatch.setattr(cpp_extension, "load_inline", lambda **options: asked.update(options) or bound)
    real = torch.empty, torch.zeros
    for name, function in zip(("empty", "zeros"), real, strict=True):
        monkeypatch.setattr(
            torch, name, lambda *size, function=function, device=None, **options: function(*size, **options)
        )
    names: dict[str, Any] = {}
    exec(export_inline(directory, SPACE, form), names)
    assert asked["functions"] == ["gemm_forward", "gemm_bias_forward"]
    assert "--offload-arch=gfx950" in asked["extra_cuda_cflags"]
    a, b = torch.randn(2, 3, 20).bfloat16(), torch.randn(20, 5).bfloat16()
    if form == "linear":
        model = names["ModelNew"](20, 5)
        assert model.bias.abs().max() <= 1 / 20**0.5
        torch.testing.assert_close(
            model(a), torch.nn.functional.linear(a, model.weight, model.bias), rtol=0.02, atol=0.02
        )
        return
    model = names["ModelNew"]()
    for _ in range(2):
        given = b if form == "matmul" else b.T.contiguous()
        assert torch.equal(model(a, given), model(a, given))
        torch.testing.assert_close(model(a, given), a @ b, rtol=0.02, atol=0.02)
        b.add_(1)


def test_what_the_command_says(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model_new.py"
    assert main(["export", str(directory), "--format", "inline", "-o", str(out)]) == 0
    assert "class ModelNew(MatmulModel)" in out.read_text()
    assert main(["export", str(directory), "-o", str(tmp_path / "none" / "x.py")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["export", str(tmp_path), "-o", str(out)]) == 2


NAMES = (
    'x""" + str(ran.append(1)) + """',
    '""";ran.append(1);"""',
    'ends in a quote"',
    "ends in a backslash\\",
    '\\"""; ran.append(1); """',
    "'''; ran.append(1); r'''",
    "${head} $name {0} %s \u202e \\N{BULLET} \\x41 \\777",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_devices_name_is_text_in_the_module_and_nothing_else(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    reseal(tmp_path, lambda text: text.replace('"name": "emulated gfx950"', f'"name": {json.dumps(name)}'))
    monkeypatch.setattr(cpp_extension, "load_inline", lambda **options: None)
    text = export_inline(tmp_path, SPACE, "matmul")
    before, after = export_inline(directory, SPACE, "matmul").splitlines(), text.splitlines()
    assert [at for at, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]] == [0]
    ran: list[int] = []
    names: dict[str, Any] = {"ran": ran}
    exec(text, names)
    assert ran == []
    assert escaped(name) in names["__doc__"].splitlines()[0]


def _other(text: str, _text: str) -> str:
    return text


def test_a_config_of_no_space_is_not_exported(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    document = json.loads((directory / "table.json").read_bytes())
    kernel = document["entries"][0]["kernel"]
    good = dict(kernel["config"])
    for change, rule in (
        ({"schedule": "interleave:x"}, "schedule='interleave:x' is not a legal value"),
        ({"block_m": 48}, "block_m=48 is not a legal value"),
        ({"block_m": 256, "block_n": 256, "stages": 4}, "is illegal: "),
        ({"extra": 1}, "has an unknown 'extra'"),
    ):
        kernel["config"] = {**good, **change}
        kernel["config_id"] = Config(kernel["config"]).id
        reseal(tmp_path, partial(_other, json.dumps(document)))
        with pytest.raises(SpaceError) as caught:
            export_inline(tmp_path, SPACE, "matmul")
        assert rule in str(caught.value)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("auto c = torch::mm(a, b);", "torch computes"),
        ("PYBIND11_MODULE(x, m) {}", "PYBIND11_MODULE"),
        ("acc.zero();", "tile.zero()"),
        ("constexpr int n = NUM_WARPS * 32;", "waves of 32"),
        ('#include "kittens.hpp"', "kittens.hpp"),
        ("__shared__ float x[4];", "static shared"),
        ("using G = kittens::group<NUM_THREADS>;", "group<NUM_THREADS>"),
        ("hipFuncSetAttribute(kernel, x, y);", "hipFuncSetAttribute"),
        ("int w = kittens::warp_id();", "kittens::warp_id"),
        ("k<<<grid, block, smem>>>(a);", "default stream"),
        ("auto c = torch::zeros({m, n});", "zeroing"),
    ],
)
def test_every_habit_is_found_and_comments_are_not_code(source: str, name: str) -> None:
    assert [habit.name for habit in forbidden_habits(source) if name in str(habit)]
    assert not forbidden_habits(
        f"// {source}\nextern __shared__ int x[]; hipFuncSetAttribute((void *)k, 1, 2); zero(c);"
    )


def test_pythons_habits_are_found() -> None:
    for source in ("torch.matmul(a, b)", "F.linear(x, w)", "a @ b", "key = id(b)"):
        assert forbidden_python(source)
    assert not forbidden_python("module.gemm_forward(a, b)")


@pytest.mark.parametrize("template", sorted(KERNELS.glob("*/*/gemm.hip")), ids=lambda path: path.parent.name)
def test_templates_have_none(template: Path) -> None:
    assert not forbidden_habits(template.read_text())
