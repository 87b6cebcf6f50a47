"""A config named by the first digits of its id and the directory that it was tried, tabled or built in."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hktune.cli import main
from hktune.commands.config_words import ConfigWords, find_config
from hktune.core.config import Config
from hktune.core.errors import InputError, SpaceError
from hktune.core.operation import BF16_NT, BF16_NT_BIAS
from hktune.core.outcome import Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.space import load_space
from hktune.store import TrialStore, read_trials
from hktune.tuning.benches.prebuilt import Built

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "results" / "gfx950-emulated"
SPACE = load_space(ROOT / "search_spaces" / "gfx950_gemm_bf16.yaml")
SMALL = SPACE.config({"block_m": 128, "block_n": 128, "split": 1})
LARGE = SPACE.config({})


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A results directory with two configs, and a name that a shell must be told about."""
    folder = tmp_path / "my out=1:2"
    folder.mkdir()
    tried(folder, SMALL, LARGE)
    return folder


def tried(folder: Path, *configs: Config, **fields: str) -> None:
    made = {"template": SPACE.template.name, "template_sha256": SPACE.template.sha256, **fields}
    row = Trial(0, 64, 64, 64, BF16_NT, "", "", Status.WRONG, detail="3 elements differ")
    TrialStore(folder).extend(
        replace(row, config_id=config.id, config=config.json, **made)  # type: ignore[arg-type]
        for config in configs
    )


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("digits", [1, 8, 16])
def test_any_unique_prefix_names_a_config(directory: Path, digits: int) -> None:
    for config in (SMALL, LARGE):
        assert ConfigWords([f"{directory}:{config.id[:digits]}"]).config(SPACE) == config
        assert ConfigWords([f"{directory}:{config.id[:digits].upper()}"]).config(SPACE) == config
        assert ConfigWords([f"{directory / 'trials.csv'}:{config.id[:digits]}"]).config(SPACE) == config


def test_words_beside_it_are_what_differs_from_it(directory: Path) -> None:
    words = ConfigWords(["stages=3", f"{directory}:{SMALL.id}", "k_step=32"])
    assert words.config(SPACE) == SPACE.config({**SMALL, "stages": 3, "k_step": 32})


def test_a_table_and_a_build_name_configs_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table"
    table.mkdir()
    shutil.copy(SHIPPED / "table.json", table)
    kernel = json.loads((table / "table.json").read_text())["entries"][0]["kernel"]
    for named in (table, table / "table.json"):
        assert find_config(named, kernel["config_id"][:8]).config == Config(kernel["config"])

    built = tmp_path / "built"
    built.mkdir()
    record = Built(SPACE.name, SPACE.template.name, SPACE.template.sha256, "clang", (dict(SMALL),))
    (built / "built.json").write_text(json.dumps({name: getattr(record, name) for name in record.__struct_fields__}))
    assert main(("explain", f"{built}:{SMALL.id[:6]}")) == 0
    assert SMALL.id in capsys.readouterr().out


def test_an_ambiguous_or_unknown_id_is_answered_with_candidates(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("explain", "verify"):
        said = refused(capsys, command, f"{directory}:")
        assert SMALL.id in said
        assert LARGE.id in said
        assert "give more digits" in said
    unknown = SMALL.id[:6] + ("0" if SMALL.id[6] != "0" else "1")
    assert f"begins with '{unknown}': it has {SMALL.id}, {LARGE.id}" in refused(
        capsys, "explain", f"{directory}:{unknown}"
    )


def test_of_many_candidates_only_some_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    configs = {trial.config_id for trial in read_trials(SHIPPED / "trials.csv")}
    said = refused(capsys, "explain", f"{SHIPPED}:")
    assert f"{len(configs)} configs of " in said
    listed = sum(config in said for config in configs)
    assert 1 < listed < 20
    assert f"and {len(configs) - listed} more" in said


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("nowhere:5357f7f5", "no such directory"),
        (f"{ROOT / 'docs'}:5357f7f5", "holds no trials.csv"),
        (f"{'x' * 5000}:5357f7f5", "no such directory"),
        ("\0:5357f7f5", "no such directory"),
        ("/dev/zero:5357f7f5", "is a device"),
        (f"{SHIPPED}:xyz", "is no config id"),
        (f"{SHIPPED}:5357f7f558645f850", "is no config id"),
        (f"{SHIPPED}:\x1b[31m", "is no config id"),
        ("5357f7f5", "write PARAMETER=VALUE, or DIR:ID"),
    ],
)
def test_what_names_nothing_is_one_line(capsys: pytest.CaptureFixture[str], reference: str, said: str) -> None:
    assert said in refused(capsys, "explain", reference)
    assert said in refused(capsys, "verify", reference)


def test_two_configs_are_one_too_many(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "name one" in refused(capsys, "explain", f"{directory}:{SMALL.id}", f"{directory}:{LARGE.id}")


def test_a_config_of_another_template_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tried(tmp_path, SMALL, template="gfx950/other")
    assert "is of another template: saved=gfx950/other" in refused(capsys, "explain", f"{tmp_path}:{SMALL.id}")


def test_a_config_of_another_version_of_the_space_is_refused(tmp_path: Path) -> None:
    newer, other = Config({**SMALL, "cluster": 2}), Config({**SMALL, "block_m": 7})
    tried(tmp_path, newer, other)
    for config in (newer, other):
        with pytest.raises(InputError, match="another version of gfx950_gemm_bf16"):
            ConfigWords([f"{tmp_path}:{config.id}"]).config(SPACE)


def test_a_config_that_is_older_than_a_parameter_has_its_default(tmp_path: Path) -> None:
    default = next(each.default for each in SPACE.parameters if each.name == "split_k")
    older = Config({name: value for name, value in SMALL.items() if name != "split_k"})
    tried(tmp_path, older)
    assert ConfigWords([f"{tmp_path}:{older.id}"]).config(SPACE) == Config({**SMALL, "split_k": default})


def test_a_template_that_changed_since_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tried(tmp_path, SMALL, template_sha256="ab" * 32)
    assert main(("explain", f"{tmp_path}:{SMALL.id}")) == 0
    assert "has changed since it was tried: saved=abababababab" in capsys.readouterr().out


def test_the_space_is_that_of_the_directorys_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    measured = ROOT / "results" / "sm90a-nvidia-h100-80gb-hbm3"
    assert main(("explain", f"{measured}:66f81eca", "--problem", "8192x8192x8192")) == 0
    out = capsys.readouterr().out
    assert " of sm90a_gemm_bf16" in out
    said = dict(line.split()[:2] for line in out.splitlines() if line and line[0] != " ")
    assert "cluster_rows" in said
    assert said["a_loads"] == "tma", "it was measured before there was another way"


def test_explain_prints_a_legal_config_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("explain", "block_m=128", "block_n=128", "split=1", "--problem", "300x4096x4096+bias")) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    said = dict(line.split()[:2] for line in out.splitlines() if line and line[0] != " ")
    for name, value in SMALL.items():
        assert said[name] == str(value).lower()
    flat = " ".join(out.split())
    assert "block_m 128 256 rows of C that a workgroup computes" in flat  # with its default
    assert "warps=8 threads=512" in flat
    assert "65536 of 163840 bytes" in flat  # 2 stages of (128 + 128) x 64 elements of 2 bytes
    assert "grid of 96x1x1 workgroups, 512x1x1 work-items" in flat  # 3 x 32 blocks
    assert "gfx950_gemm_bf16" in flat.partition("defaults are those of")[2]
    assert SMALL.id in flat


def test_explain_without_a_config_lists_the_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    for space, name, values in (
        ("gfx950_gemm_bf16", "stages", "2 1 2 3 4"),
        ("sm90a_gemm_bf16", "cluster_rows", "2 1 2 4"),
    ):
        assert main(("explain", "--space", space)) == 0
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= 80
        flat = " ".join(out.split())
        assert f" {name} {values} " in flat
        for parameter in load_space(ROOT / "search_spaces" / f"{space}.yaml").parameters:
            assert f" {parameter.name} " in flat


def test_one_parameter_twice_is_refused(tmp_path: Path, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("explain", "verify"):
        said = refused(capsys, command, "block_m=128", "k_step=64", "block_m=256")
        assert "block_m is given twice: block_m=128 and block_m=256" in said
    assert "twice" in refused(capsys, "explain", f"{directory}:{SMALL.id}", "stages=2", "stages=2")
    configs = tmp_path / "configs.txt"
    configs.write_text("block_m=128\nk_step=64 k_step=32\n")
    build = ("build", "--space", "gfx950_gemm_bf16", "-o", str(tmp_path / "built"), "--configs", str(configs))
    assert "k_step is given twice" in refused(capsys, *build)
    with pytest.raises(SpaceError, match="twice"):
        SPACE.parse(["stages=2", "stages=3"])


def test_a_number_of_a_kernel_given_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = tmp_path / "kernel.hip"
    kernel.write_text("")
    assert "'n' is given twice" in refused(capsys, "verify", "--kernel", str(kernel), "n=1", "n=2")


def test_a_problem_may_have_a_bias(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("explain", "--problem", "16x4608x3584+bias")) == 0
    assert f"legal for {Problem(16, 4608, 3584, BF16_NT_BIAS)}" in capsys.readouterr().out
    assert "'16x4608x3584+mish'" in refused(capsys, "explain", "--problem", "16x4608x3584+mish")
