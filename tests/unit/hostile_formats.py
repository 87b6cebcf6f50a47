"""Every format that hktune reads from outside: a good file of it, how it is harmed, and what reads it as a command or a
program does. A reader answers, or raises one printable line; it runs nothing and opens nothing elsewhere."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from attack import Format
from foreign_files import AITER_TUNED, BENCH_OUTPUT, LOG, TRACE, TUNABLE, YAML
from hostile import Victim, amd_victim, harmed, nvidia_victim, row_of_an_algorithm
from mutants import changed, csv_mutant, json_mutant, text_mutant, words_mutant, yaml_mutant
from naive_gemm import EMULATED, OBJECT, published, trial
from test_instruction_coverage import bundle as bundle_of
from toy_space import TOY_SOURCE, TOY_SPACE, TOY_TEMPLATE

from hktune.cli import main
from hktune.compile import AbsentCompiler, CachedCompiler
from hktune.compile.command_line import device_flags
from hktune.core.config import Config
from hktune.core.errors import HktuneError
from hktune.core.outcome import Failure, Source, Status
from hktune.core.problem import Problem
from hktune.core.shapes import load_shapes
from hktune.core.shipped import DEFAULT_SPACE
from hktune.core.variant import CodeObject, Resources, Variant
from hktune.dispatch import Table, Trust, read_table, sign_table, table_json
from hktune.exchange import read_shapes
from hktune.export import export_inline
from hktune.objects.code_object import read_code_object
from hktune.objects.cubin import read_cubin
from hktune.objects.demangled import chosen_symbol
from hktune.objects.offload_bundle import device_objects
from hktune.report.console import PlainConsole
from hktune.report.tables import print_table
from hktune.space import Spaces, load_space
from hktune.store import capture_environment, merge, read_environment, read_frame, read_trials, write_environment
from hktune.store.origins import Origin, read_origins, write_origins
from hktune.store.recordings import load_recordings, recordings_among
from hktune.store.recordings.kernel_tuner_cache import cache_json
from hktune.store.recordings.t4_trials import t4_json
from hktune.store.rows import HEADER, Encoder
from hktune.template import load_template
from hktune.tuning.benches.prebuilt import Built, read_built, read_configs
from hktune.tuning.own_trials import require_own
from hktune.verify.kernel_arguments import parse_numbers, parse_parameters
from hktune.verify.kernel_buffers import read_array
from hktune.verify.kernel_file import EMULATOR_FAILED, KernelRun, judge
from hktune.verify.kernel_source import KERNEL_FILE, compile_source, device_source

PROBLEM = Problem(512, 1024, 1024)
SHAPES = b"""dtype: bf16
epilogue: none
shapes:
  - {m: 4096, n: 4096, k: 4096}
  - {name: llama-3-70b-qkv, m: [128, 2048], n: 10240, k: 8192, weight: 80}
  - {name: "o\\u00e9", m: 1, n: 64, k: 64, epilogue: bias, dtype: bf16}
  - {m: 2, n: 64, k: 64, operation: [bf16.nt+bias, f16.nn->f32]}
"""
CONFIGS = b"block_m=128 stages=2 # a comment\neager=true order=swizzled\n\nblock_m=64 block_n=512 warps_m=1 warps_n=8\n"
KERNEL = (
    b'extern "C" __global__ __launch_bounds__(256) void reverse(const float *x, float *y, int n) { y[0] = x[n]; }\n'
)
LAUNCH = (
    b"a:bf16[m,k] bt@8:gl:e4m3[n!,k] c:out:bf16[m,n]=ones s:{m n=4*k pad:bytes[4]} alpha:f32 "
    b"| m=8 n=16 k=32 alpha=2.5 | m//8*n,1,1 | 64,1 | m*2"
)


def formats(folder: Path) -> list[Format]:
    """Every format; what their readers need beside the file itself lies in `folder`, the current directory."""
    return [
        *_descriptions(folder),
        *_foreign(folder),
        *_recordings(folder),
        *_results(folder),
        *_tables(folder),
        *_builds(folder),
        *_kernels(folder),
        *_words(folder),
    ]


def _written(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """`read` of the file at `path`, the bytes written there first."""

    def judge_bytes(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return judge_bytes


def _descriptions(folder: Path) -> list[Format]:
    root = folder / "toy"
    for place in ("kernels/gfx950/toy", "broken/gfx950/toy", "spaces"):
        (root / place).mkdir(parents=True)
    for place in ("kernels/gfx950/toy", "broken/gfx950/toy"):
        (root / place / "template.yaml").write_text(TOY_TEMPLATE)
        (root / place / "toy.hip").write_text(TOY_SOURCE)
    (root / "spaces" / "toy.yaml").write_text(TOY_SPACE)
    broken = root / "broken" / "gfx950" / "toy"
    config = load_space(root / "spaces" / "toy.yaml", root / "kernels").config({})

    def use_space(path: Path) -> None:
        space = load_space(path, root / "kernels")
        made = space.config({})
        space.violations(made, PROBLEM)
        space.template.render(made)
        space.launch_rule(made, PROBLEM).at(64)

    def use_template(_: Path) -> None:
        template = load_template(broken)
        template.render(config)
        template.launch(config, PROBLEM)
        template.launch_rule(config, 64, 64).at(512)
        template.proof_problems(config)
        template.order(config)

    def use_source(_: Path) -> None:
        try:
            use_template(_)
        finally:
            (broken / "toy.hip").write_text(TOY_SOURCE)

    def use_description(path: Path) -> None:
        try:
            use_template(path)
        finally:
            path.write_text(TOY_TEMPLATE)

    space = load_space(root / "spaces" / "toy.yaml", root / "kernels")
    return [
        Format("shapes.yaml", SHAPES, yaml_mutant, _written(folder / "shapes.yaml", load_shapes)),
        Format("search space", TOY_SPACE.encode(), yaml_mutant, _written(root / "spaces" / "harmed.yaml", use_space)),
        Format(
            "template.yaml", TOY_TEMPLATE.encode(), yaml_mutant, _written(broken / "template.yaml", use_description)
        ),
        Format("template source", TOY_SOURCE.encode(), text_mutant, _written(broken / "toy.hip", use_source)),
        Format(
            "list of configs",
            CONFIGS,
            text_mutant,
            _written(folder / "configs", lambda path: read_configs(path, space)),
        ),
    ]


def _foreign(folder: Path) -> list[Format]:
    """Files of other tools, which say shapes."""
    read = _written(folder / "foreign", read_shapes)
    return [
        Format("AITER's CSV", AITER_TUNED.encode(), csv_mutant, read),
        Format("TunableOp's results", TUNABLE.encode(), csv_mutant, read),
        Format("log of hipBLASLt and rocBLAS", LOG.splitlines()[1].encode(), text_mutant, read),
        Format("what a benchmark prints", BENCH_OUTPUT.encode(), csv_mutant, read),
        Format("YAML of rocblas-bench", YAML.encode(), yaml_mutant, read),
        Format("profiler's trace", TRACE, json_mutant, read),
    ]


def _recordings(folder: Path) -> list[Format]:
    """Files of other tuners, which say times of configs."""
    read = _written(folder / "recording.json", load_recordings)
    row = trial(PROBLEM, source=Source.MEASURED)
    [recording] = recordings_among("good", [row])
    ktt = {"Results": [{"Configuration": [{"Name": "a", "Value": 1}], "Status": "Ok", "TotalDuration": 3.5}]}
    return [
        Format("Kernel Tuner's cache", cache_json(recording), json_mutant, read),
        Format("T4 results", t4_json([row]), json_mutant, read),
        Format("KTT's results", json.dumps(ktt).encode(), json_mutant, read),
    ]


def _results(folder: Path) -> list[Format]:
    run = folder / "run"
    run.mkdir()
    space = load_space(folder / "toy" / "spaces" / "toy.yaml", folder / "toy" / "kernels")
    spaces, config, sha256 = Spaces([space]), Config(space.config({})), space.template.sha256
    rows = [
        trial(
            PROBLEM, config=config.json, config_id=config.id, trial=number, time_us=1.5 + number, template_sha256=sha256
        )
        for number in range(5)
    ]
    rows.append(
        trial(PROBLEM, None, config_id=config.id, config=config.json, status=Status.WRONG, source=None, detail="a,b")
    )
    rows.append(row_of_an_algorithm(trial=6))
    encoder = Encoder()
    write_environment(
        capture_environment(EMULATED, "clang", "j" * 64, ["hktune", "tune"], 0, "2026-11-29T12:00:00+00:00"), run
    )

    def use_trials(path: Path) -> None:
        shutil.rmtree(folder / "merged", ignore_errors=True)
        merge([path], folder / "merged")
        merge([folder / "merged"], folder / "merged")
        merged = read_trials(folder / "merged" / "trials.csv")
        own = [each for each in merged if each.template_sha256 is None or each.template_sha256 in spaces]
        require_own(spaces, own, path)
        read_frame(folder / "merged" / "trials.csv")

    trials = HEADER + b"".join(map(encoder.line, rows))
    known = Origin("0123456789ab", "ann", "a GPU", "580.95", "abc", "0.1.0", "clang", "2026-11-29T12:00:00+00:00")
    write_origins({known.id: known}, run)
    origins = (run / "origins.json").read_bytes()
    environment = (run / "environment.json").read_bytes()
    return [
        Format("origins.json", origins, json_mutant, _written(run / "origins.json", lambda _: read_origins(run))),
        Format("trials.csv", trials, csv_mutant, _written(folder / "shard" / "trials.csv", use_trials)),
        Format(
            "environment.json",
            environment,
            json_mutant,
            _written(run / "environment.json", lambda path: read_environment(run)),
        ),
    ]


def _sealed(good: bytes, rng: random.Random) -> bytes:
    """A table changed value by value, and sealed again as its author would have it."""
    document = json.loads(good)
    document.pop("content_sha256")
    document = changed(document, rng)
    with contextlib.suppress(ValueError, RecursionError, OverflowError, TypeError):
        return table_json(msgspec.convert(document, Table))
    return json.dumps(document).encode()


def _tables(folder: Path) -> list[Format]:
    victim = amd_victim(folder / "table")
    path = folder / "table" / "table.json"

    def use_table(_: Path) -> None:
        outcome = victim.outcome()
        shown = io.StringIO()
        print_table(PlainConsole(file=shown, width=80), victim.directory)
        assert shown.getvalue().replace("\n", "").isprintable()
        assert outcome.usable

    return [
        Format("table.json", victim.table_bytes, json_mutant, _written(path, use_table)),
        Format("table.json, sealed again", victim.table_bytes, _sealed, _written(path, use_table)),
        Format("code object", OBJECT, harmed, _object_of(victim, read_code_object)),
        *_cubins(folder),
        *_exports(folder),
        *_signatures(folder),
    ]


def _object_of(victim: Victim, read: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Reads an object under its own sha256, as a stranger who fits every hash would send it."""
    path = victim.directory / "table.json"

    def use_object(data: bytes) -> None:
        sha256, old = hashlib.sha256(data).hexdigest(), victim.object_path
        document = json.loads(victim.table_bytes.replace(old.stem.encode(), sha256.encode()))
        del document["content_sha256"]
        new = old.with_name(sha256 + old.suffix)
        new.write_bytes(data)
        path.write_bytes(table_json(msgspec.convert(document, Table)))
        try:
            victim.outcome()
        finally:
            path.write_bytes(victim.table_bytes)
            if new != old:
                new.unlink()
        read(data)

    return use_object


def _cubins(folder: Path) -> list[Format]:
    """Where NVRTC is, which makes one."""
    try:
        victim = nvidia_victim(folder / "cubins")
    except (HktuneError, AssertionError):
        return []
    return [Format("cubin", victim.object, harmed, _object_of(victim, read_cubin))]


def _exports(folder: Path) -> list[Format]:
    """The shipped table of gfx950, whose module must keep its statements whatever the table says."""
    results = Path(__file__).parents[2] / "results" / "gfx950-emulated"
    shutil.copytree(results, folder / "exported")
    good = (results / "table.json").read_bytes()
    statements = _statements(export_inline(results, DEFAULT_SPACE, "matmul"))

    def use_export(_: Path) -> None:
        assert _statements(export_inline(folder / "exported", DEFAULT_SPACE, "matmul")) == statements

    path = folder / "exported" / "table.json"
    return [Format("table to export", good, _sealed, _written(path, use_export), costs=5)]


def _statements(module: str) -> list[str]:
    return [type(statement).__name__ for statement in ast.parse(module).body]


def _signatures(folder: Path) -> list[Format]:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ed25519

    signed = folder / "signed"
    published(signed, trial(Problem(8, 128, 64)))
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pem").write_bytes(private)
    (folder / "key.pub").write_bytes(public)
    signature = sign_table(signed, folder / "key.pem").read_bytes()

    def use_signature(data: bytes) -> None:
        (signed / "table.json.sig").write_bytes(data)
        try:
            read_table(signed, Trust(public))
            assert data == signature
        finally:
            (signed / "table.json.sig").write_bytes(signature)

    def use_public(path: Path) -> None:
        read_table(signed, Trust(path))

    def use_private(path: Path) -> None:
        try:
            sign_table(signed, path)
        finally:
            (signed / "table.json.sig").write_bytes(signature)

    return [
        Format("signature", signature, harmed, use_signature),
        Format("public key", public, text_mutant, _written(folder / "harmed.pub", use_public)),
        Format("private key", private, text_mutant, _written(folder / "harmed.pem", use_private)),
    ]


def _builds(folder: Path) -> list[Format]:
    build = folder / "build"
    build.mkdir()
    space = load_space(folder / "toy" / "spaces" / "toy.yaml", folder / "toy" / "kernels")
    configs = tuple(dict(space.config({"stages": stages})) for stages in (1, 2, 3))
    built = msgspec.json.encode(Built(space.name, space.template.name, space.template.sha256, "clang 22", configs))
    variant = Variant("toy", "0" * 64, "gfx950", "hip", "toy", "source", Config({}))
    data = b"object" * 99
    resources = Resources(8, 0, 16, 0, 0, 0, 0, 64)
    code = CodeObject(data, hashlib.sha256(data).hexdigest(), "toy", "gfx950", resources, "clang 22", 0.5)

    class Once:
        identity = "clang 22"

        def compile(self, variant: Variant, deadline_s: float) -> CodeObject | Failure:
            return code

    CachedCompiler(Once(), build).compile(variant, 1)
    entry = next((build / "objects").rglob("*.entry"))

    def use_entry(payload: bytes) -> None:
        entry.write_bytes(hashlib.sha256(payload).digest() + payload)
        outcome = CachedCompiler(AbsentCompiler("clang 22", "no compiler"), build).compile(variant, 1)
        assert isinstance(outcome, Failure) or hashlib.sha256(outcome.data).hexdigest() == outcome.sha256

    return [
        Format("built.json", built, json_mutant, _written(build / "built.json", lambda path: read_built(build, space))),
        Format("entry of a build", entry.read_bytes()[32:], harmed, use_entry),
    ]


def _kernels(folder: Path) -> list[Format]:
    run = KernelRun(
        parse_parameters("a:bf16[8] bt:bf16[8] c:out:bf16[8] n:u32 k:u32"), {"n": 2, "k": 2}, "1", "64", deadline_s=1.0
    )

    class CompilesNothing:
        def object_of(self, variant: Variant, deadline_s: float) -> bytes | Failure:
            return Failure(Status.COMPILE_ERROR, "nothing is compiled here")

    def use_source(path: Path) -> None:
        source, _ = device_source(KERNEL_FILE.read_text(path), device_flags("", ["SIZE=4"]), "kernel<2>")
        try:
            compile_source(path, source, None, CompilesNothing())
        except HktuneError as refused:
            if "nothing is compiled here" not in str(refused):
                raise

    def use_object(path: Path) -> None:
        data = path.read_bytes()
        with contextlib.suppress(HktuneError):
            chosen_symbol(read_code_object(data).kernels, None, path)
        failure = judge(data, "naive_gemm", run).failure
        assert failure is None or EMULATOR_FAILED not in failure.detail, failure.detail

    def use_launch(data: bytes) -> None:
        parts = data.decode(errors="replace").split("|")
        arguments, numbers, grid, block, lds = [*parts, *[""] * 5][:5]
        described = KernelRun(
            parse_parameters(arguments), parse_numbers(numbers.split()), grid.strip(), block.strip(), lds.strip()
        )
        described.launch()

    bundle = bundle_of(("hipv4-amdgcn-amd-amdhsa--gfx950", OBJECT))
    array = io.BytesIO()
    np.save(array, np.arange(24.0).reshape(2, 3, 4))
    return [
        Format("kernel source", KERNEL, text_mutant, _written(folder / "kernel.hip", use_source)),
        Format("kernel object", OBJECT, harmed, _written(folder / "kernel.hsaco", use_object)),
        Format("arguments and sizes", LAUNCH, text_mutant, use_launch),
        Format("offload bundle", bundle, harmed, lambda data: device_objects(data, "gfx950")),
        Format("array of a buffer", array.getvalue(), harmed, _written(folder / "buffer.npy", read_array)),
    ]


LINES = [
    ["explain", "--space", "toy/spaces/toy.yaml", "block_m=256", "stages=3", "--problem", "512x1024x1024"],
    ["table", "show", "table"],
    ["table", "doctor", "table", "--shapes", "good.yaml", "--device", "run"],
    ["table", "verify", "signed", "--key", "key.pub", "--created-after", "2026-11-29", "--sha256", "00"],
    ["table", "diff", "table", "signed", "--shapes", "good.yaml", "--json"],
    ["shapes", "good.yaml", "--operation", "bf16.nt", "-o", "lines.yaml"],
    ["compare", "table", "good.yaml", "--json"],
    ["merge", "shard", "run", "-o", "lines"],
    ["export", "table", "--form", "linear", "-o", "lines.py"],
    ["tune", "--shapes", "absent.yaml", "--device", "emulated", "--seed", "3", "--trials", "4", "--workers", "1"],
    ["build", "--space", "absent.yaml", "-o", "lines", "--random", "3", "--seed", "0", "--configs", "configs"],
]


def _words(folder: Path) -> list[Format]:
    (folder / "shard").mkdir()
    (folder / "good.yaml").write_bytes(SHAPES)

    def mutate(good: bytes, rng: random.Random) -> bytes:
        words = words_mutant(rng.choice(json.loads(good)), rng)
        return json.dumps([words]).encode()

    def use(data: bytes) -> None:
        for words in json.loads(data):
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(words)
            said = (out.getvalue() + err.getvalue()).replace("\n", "")
            assert code in (0, 1, 2), code
            assert said.isprintable(), said
            assert code != 2 or err.getvalue().count("\n") == 1, err.getvalue()
            if code == 2:
                raise HktuneError(err.getvalue().strip()[:1000])

    return [Format("command line", json.dumps(LINES).encode(), mutate, use)]
