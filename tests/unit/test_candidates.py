"""Kernels of other templates as candidates: a run proves and times them, and its table may launch them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
import yaml
from gemm_bf16_variants import built, space
from naive_gemm import EMULATED, launch_of, table_of, trial

from hktune.cli import main
from hktune.core.candidate import Candidate
from hktune.core.errors import InputError, SpaceError
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import DEFAULT_SPACE, SPACES
from hktune.core.trial import Trial
from hktune.device.emulated import EmulatedDevice
from hktune.dispatch import read_table, validate
from hktune.measure.stopwatch import Attempt
from hktune.runtime import FallbackWarning, LoadedTable
from hktune.space import load_space, load_spaces
from hktune.store import TrialStore, read_trials
from hktune.tables import build_table, cross_trials
from hktune.template import Template, Templates
from hktune.tuning import candidates
from hktune.tuning.candidates import candidate_searches, candidate_spaces
from hktune.tuning.ledger import Ledger
from hktune.tuning.rivals import AITER
from hktune.tuning.trial_rows import RowContext

PROBLEM = Problem(64, 256, 512)

TEMPLATE = """
name: given
arch: gfx950
language: object
operations: [bf16.nt]
objects:
  parameter: kernel
  licence: our own
  files:
    small: {{file: small.hsaco, sha256: {sha256}, symbol: hktune_gemm_bf16}}
    absent: {{file: absent.hsaco, sha256: {sha256}, symbol: hktune_gemm_bf16}}
arguments:
  - {{name: a, kind: pointer}}
  - {{name: b, kind: pointer}}
  - {{name: c, kind: pointer}}
  - {{name: bias, kind: pointer}}
  - {{name: workspace, kind: pointer}}
  - {{name: m, kind: i32}}
  - {{name: n, kind: i32}}
  - {{name: k, kind: i32}}
  - {{name: lda, kind: i32}}
  - {{name: ldb, kind: i32}}
  - {{name: ldc, kind: i32}}
  - {{name: accumulate, kind: i32}}
tile: {{m: 128, n: 128, k: 64}}
launch:
  grid: ["ceil_div(m, 128) * ceil_div(n, 128)", 1, 1]
  block: {block}
  dynamic_lds_bytes: {lds_bytes}
contiguous: true
proof:
  - {{m: 256, n: 256, k: 512}}
  - {{m: 100, n: 128, k: 320}}
"""
SPACE = """
name: given
template: gfx950/given
parameters:
  kernel: {values: [small, absent], default: small, help: the code object}
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A space whose kernel is a file: the shipped template's smallest block, faster here than its default."""
    root = tmp_path_factory.mktemp("given")
    config = space().config({"block_m": 128, "block_n": 128, "split": 1})
    code, launch = built(config), space().template.launch(config, PROBLEM)
    folder = root / "kernels" / "gfx950" / "given"
    folder.mkdir(parents=True)
    (folder / "small.hsaco").write_bytes(code.data)
    text = TEMPLATE.format(sha256=code.sha256, block=list(launch.block), lds_bytes=launch.dynamic_lds_bytes)
    (folder / "template.yaml").write_text(text)
    path = root / "search_spaces" / "given.yaml"
    path.parent.mkdir()
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="module")
def tuned(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves that had one trial of its own space, the default config, and the candidate."""
    root = tmp_path_factory.mktemp("tuned")
    own = yaml.safe_load(DEFAULT_SPACE.read_text(encoding="utf-8"))
    del own["estimate"]
    (root / "own.yaml").write_text(yaml.safe_dump(own | {"seeds": [{}]}, sort_keys=False))
    shapes = root / "shapes.yaml"
    shapes.write_text(f"shapes:\n  - {{m: {PROBLEM.m}, n: {PROBLEM.n}, k: {PROBLEM.k}, name: small}}\n")
    assert main(_tune(root, given)) == 0
    return root


def _tune(root: Path, given: Path) -> list[str]:
    common = ["tune", "--device", "emulated", "--shapes", str(root / "shapes.yaml"), "--trials", "1", "--workers", "1"]
    own = ["--space", str(root / "own.yaml"), "--rivals", "none"]
    return [*common, *own, "--candidates", str(given), "-o", str(root / "out")]


def test_a_row_of_the_table_launches_the_candidate(tuned: Path, given: Path) -> None:
    template = load_space(given).template
    rows = read_trials(tuned / "out" / "trials.csv")
    own, candidate = sorted(rows, key=lambda row: str(row.template))
    assert (own.template, candidate.template) == ("gfx950/gemm_bf16", "gfx950/given")
    assert _time_us(candidate) < _time_us(own)
    [entry] = read_table(tuned / "out").entries
    assert entry.kernel is not None
    kernel = entry.kernel
    assert (kernel.template, kernel.template_sha256) == (template.name, template.sha256)
    assert (kernel.config, kernel.symbol) == ({"kernel": "small"}, "hktune_gemm_bf16")
    assert (kernel.object_sha256, entry.time_us) == (candidate.object_sha256, candidate.time_us)
    data = (given.parent.parent / "kernels/gfx950/given/small.hsaco").read_bytes()
    assert (tuned / "out" / "objects" / f"{kernel.object_sha256}.hsaco").read_bytes() == data
    assert '"contiguous": true' in (tuned / "out" / "table.json").read_text()


def test_the_runtime_launches_it_where_rows_are_contiguous_alone(tuned: Path) -> None:
    torch.manual_seed(3)
    x, weight = torch.randn(64, 512).bfloat16(), torch.randn(256, 512).bfloat16()
    out, device = tuned / "out", EmulatedDevice()
    table = LoadedTable(validate(read_table(out), out, device.identity, allow_modelled=True), device)
    product = table.linear(x, weight)
    assert (table.stats().hits, table.stats().fallbacks) == (1, {})
    torch.testing.assert_close(product.double(), x.double() @ weight.double().T, rtol=2**-7, atol=2**-5)
    strided = torch.zeros(64, 1024).bfloat16()[:, :512].copy_(x)
    with pytest.warns(FallbackWarning, match="because of: strides"):
        assert torch.equal(table.linear(strided, weight), torch.nn.functional.linear(x, weight))
    assert table.stats().hits == 1


def test_a_second_run_goes_on_from_all_rows(tuned: Path, given: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (tuned / "out" / "trials.csv").read_bytes()
    assert main(_tune(tuned, given)) == 0
    assert (tuned / "out" / "trials.csv").read_bytes() == before
    assert "0 new variants" in capsys.readouterr().out


def test_a_run_without_candidates_leaves_their_rows_out(
    tuned: Path, given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    TrialStore(out).extend(read_trials(tuned / "out" / "trials.csv"))
    (out / "environment.json").write_bytes((tuned / "out" / "environment.json").read_bytes())
    words = _tune(tuned, given)[:-4]
    assert main([*words, "-o", str(out)]) == 0
    assert "1 trials of gfx950/given" in capsys.readouterr().err
    [entry] = read_table(out).entries
    assert entry.kernel is not None
    assert entry.kernel.template == "gfx950/gemm_bf16"


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (["table", "show", "OUT"], 0, "gfx950/given"),
        (["table", "doctor", "OUT", "--allow-modelled"], 0, "0 wrong"),
        (["merge", "OUT", "-o", "TMP"], 0, "2 trials"),
        (["table", "build", "OUT", "-o", "TMP"], 0, "1 trials of other templates were left out: see --candidates"),
        (["table", "build", "OUT", "-o", "TMP", "--candidates", "GIVEN"], 0, "1 shapes by 1 kernels"),
        (["export", "OUT", "-o", "TMP"], 2, "export writes kernels of gfx950/gemm_bf16 alone: build the table without"),
        (["explain", "OUT:ID"], 2, "saved=gfx950/given current=gfx950/gemm_bf16: pass the --space"),
        (["explain", "OUT:ID", "--space", "GIVEN"], 0, "kernel small"),
        (["verify", "OUT:ID", "--space", "GIVEN"], 0, "proved on 256x256x512"),
    ],
)  # fmt: skip
def test_each_command_works_or_says_why_not(
    tuned: Path, given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    command: Sequence[str], code: int, says: str,
) -> None:  # fmt: skip
    config_id = load_space(given).config({}).id
    out = str(tuned / "out")
    places = {"OUT": out, "TMP": str(tmp_path / "made"), "GIVEN": str(given), "OUT:ID": f"{out}:{config_id}"}
    assert main([places.get(word, word) for word in command]) == code
    printed = capsys.readouterr()
    assert says in " ".join((printed.out if code == 0 else printed.err).split())
    assert len(printed.err.splitlines()) == (code == 2)
    if "--candidates" in command:
        assert read_table(tmp_path / "made").entries == read_table(tuned / "out").entries


def test_what_is_not_here_or_cannot_be_launched_is_no_candidate(given: Path, tmp_path: Path) -> None:
    spaces = load_spaces((DEFAULT_SPACE, given))
    problems = [PROBLEM, replace(PROBLEM, operation=spaces.own.template.operations[1])]
    [search] = candidate_searches(spaces, problems, "exhaustive", 0, Settings(tmp_path))
    assert (search.problem, search.template, search.configs) == (PROBLEM, spaces.others[0].template.sha256, 1)
    assert [dict(config) for config in search.strategy.ask(5)] == [{"kernel": "small"}]


def test_a_kernel_that_adds_to_c_is_no_candidate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """AITER's of float32, whose shares of a split K are added to C; a whole K is written."""
    monkeypatch.setattr(candidates, "is_here", lambda *_: True)
    spaces = load_spaces((DEFAULT_SPACE, SPACES / "gfx950_aiter_bf16_outf32.yaml"))
    wide = Problem(64, 256, 512, spaces.others[0].template.operation)
    [search] = candidate_searches(spaces, [PROBLEM, wide], "exhaustive", 0, Settings(tmp_path))
    assert (search.problem, search.configs) == (wide, 4)
    assert {config["split_k"] for config in search.strategy.ask(8)} == {1}


def test_words_name_rivals_and_spaces(given: Path) -> None:
    assert candidate_spaces(["aiter", str(given), "gfx950_aiter_bf16_large"]) == (*AITER.spaces, given)
    with pytest.raises(
        InputError, match=r"^no candidates cutlass: known are aiter, triton, gfx950_aiter_bf16_large, .*by its file$"
    ):
        candidate_spaces(["cutlass"])
    with pytest.raises(SpaceError, match="is of the template of another space, gfx950/given: name one"):
        load_spaces((given, given))
    with pytest.raises(SpaceError, match="sm90a_gemm_bf16 is for sm90a, given for gfx950"):
        load_spaces((given, SPACES / "sm90a_gemm_bf16.yaml"))


ALIKE = [("gfx950/one", "1" * 64), ("gfx950/two", "2" * 64)]
"""Two templates with configs of the same id."""


def rows_of(problem: Problem, *times: float) -> list[Trial]:
    return [
        trial(problem, time_us, template=name, template_sha256=sha256)
        for (name, sha256), time_us in zip(ALIKE, times, strict=True)
    ]


def test_configs_of_two_templates_with_one_id_stay_apart_in_a_table() -> None:
    low, high = Problem(8, 64, 64), Problem(32, 64, 64)
    rows = [*rows_of(low, 1.0, 2.0), *rows_of(high, 9.0, 3.0)]
    kernels = [entry.kernel for entry in table_of(*rows).entries]
    assert [kernel and kernel.template for kernel in kernels] == ["gfx950/one", "gfx950/two"]
    assert cross_trials(rows) == []
    assert [(winner.template, problem) for winner, problem in cross_trials([rows[0], rows[3]])] == [
        ("gfx950/one", high), ("gfx950/two", low),
    ]  # fmt: skip


def test_a_table_says_contiguous_where_it_is_so_and_is_as_before_elsewhere() -> None:
    row = trial(Problem(8, 64, 64))

    def launch(_: Trial) -> tuple[str, object]:
        symbol, rule = launch_of(row)
        return symbol, replace(rule, contiguous=True)

    made = build_table([row], launch, EMULATED, "none", "0", "2026-11-29T18:00:00+00:00")  # type: ignore[arg-type]
    for table, said in ((made, True), (table_of(row), False)):
        [entry] = table.entries
        assert entry.kernel is not None
        assert entry.kernel.launch.rule.contiguous is said
        assert entry.kernel.launch.rule.at(8).contiguous is said  # type: ignore[union-attr]


def test_rows_of_each_template_are_counted_by_themselves(tmp_path: Path) -> None:
    """Of one config id, two templates have a row each; so many configs of each are wanted."""
    one, two = (cast("Template", SimpleNamespace(name=name, sha256=sha256)) for name, sha256 in ALIKE)
    context = RowContext(Templates(one, [two]), EMULATED, "random", 0)
    first, second = rows_of(PROBLEM, 1.0, 2.0)
    ledger = Ledger(tmp_path, context, fresh=False)
    TrialStore(tmp_path).extend([first, replace(second, template_sha256="3" * 64, template="gfx950/three")])
    assert [row.template for row in ledger.rows()] == ["gfx950/one"]
    assert [note.split(" in ")[0] for note in ledger.notes] == ["1 trials of gfx950/three 333333333333"]
    TrialStore(tmp_path).append(second)
    assert [row.template for row in ledger.rows()] == ["gfx950/one", "gfx950/two"]


def test_one_id_of_two_templates_is_asked_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TrialStore(tmp_path).extend(rows_of(PROBLEM, 1.0, 2.0))
    config_id = rows_of(PROBLEM, 1.0, 2.0)[0].config_id
    assert main(["explain", f"{tmp_path}:{config_id[:8]}"]) == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith(
            f"config {config_id} of {tmp_path} is of gfx950/one and gfx950/two: write variant=0 and the --space of one"
        )
    )


def test_candidates_of_two_templates_are_two() -> None:
    config = space().config({})
    one, two = Candidate(config, template="1" * 64), Candidate(config, template="2" * 64)
    assert one.id != two.id
    assert Attempt(config, template="1" * 64).candidate == one != two


def _time_us(row: Trial) -> float:
    assert row.time_us is not None
    return row.time_us
