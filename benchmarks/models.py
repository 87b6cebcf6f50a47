"""Whether real models give the same answers by a table as without one: transformers, peft, accelerate, torchao, FSDP2.

    python -m venv /tmp/models
    /tmp/models/bin/pip install -e '.[gfx950]' 'transformers>=5,<6' peft accelerate torchao
    /tmp/models/bin/python benchmarks/models.py [CASE...] [--trials N] [--out DIR [--reuse]]

Nothing is downloaded: every model is a tiny one with random weights. Each is recorded, its shapes are tuned on the
emulated gfx950, and a patched copy runs beside an unpatched one, both bf16, and one of float64 with the same weights.
Compared are the logits, the loss of each of three steps of a fused AdamW, the first step's gradients, and by how much
the steps moved the weights. Both bf16 runs round every product once, so that what torch's run is off from float64 is
what the formats cost; the patched run may be off by twice that, and by one rounding (2^-9) where torch was lucky.
Exits with 1 when one is off by more, or when a call that a kernel was tuned for was not served.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers
from torch import Tensor, nn

import hktune
from hktune.cli import main as run_command

STEPS, LEARNING_RATE = 3, 0.01
BATCH, TOKENS, VOCABULARY, WIDTH = 2, 32, 128, 64
ROUNDING = 2.0**-9

Model = Any
Change = Callable[[Model], Model]


def unchanged(model: Model) -> Model:
    return model


def as_float64(model: Model) -> Model:
    return model.double()


@dataclass(frozen=True)
class Case:
    """A model to be compared. `before` and `after` are done to a copy of it, before and after that is patched;
    `exact` makes the float64 model of a bf16 one."""

    build: Callable[[], Model]
    before: Change = unchanged
    after: Change = unchanged
    exact: Change = as_float64
    trains: bool = True
    ranks: int = 1
    weights: torch.dtype = torch.bfloat16
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    fallbacks: frozenset[str] = frozenset()
    """Why torch may serve calls of patched layers."""


@dataclass(frozen=True)
class Outcome:
    """What a rank found: quantities by name of the three runs, what `patch` did, and what the table served."""

    exact: dict[str, Tensor]
    torchs: dict[str, Tensor]
    served: dict[str, Tensor]
    patched: str
    layers: int
    left: int
    hits: int
    fallbacks: dict[str, int]


# ---------------------------------------------------------------- models


def llama() -> Model:
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, attn_implementation="eager",
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def gpt2() -> Model:
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=2, n_head=4, n_positions=TOKENS, resid_pdrop=0, embd_pdrop=0,
        attn_pdrop=0, attn_implementation="eager",
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def bert() -> Model:
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=2 * WIDTH, max_position_embeddings=TOKENS, hidden_dropout_prob=0,
        attention_probs_dropout_prob=0, attn_implementation="eager",
    )  # fmt: skip
    return transformers.BertForMaskedLM(config)


def t5() -> Model:
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=16, d_ff=2 * WIDTH, num_layers=2, num_heads=4, dropout_rate=0,
        feed_forward_proj="gated-gelu", decoder_start_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config)


def mixtral() -> Model:
    config = transformers.MixtralConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=4, attn_implementation="eager",
        experts_implementation="eager",
    )  # fmt: skip
    return transformers.MixtralForCausalLM(config)


def qwen_moe() -> Model:
    config = transformers.Qwen2MoeConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=2 * WIDTH, moe_intermediate_size=WIDTH,
        shared_expert_intermediate_size=2 * WIDTH, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        num_experts=4, num_experts_per_tok=2, attn_implementation="eager", experts_implementation="eager",
    )  # fmt: skip
    return transformers.Qwen2MoeForCausalLM(config)


def llama_with_lora() -> Model:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=16, lora_alpha=32, init_lora_weights=False, target_modules="all-linear")
    return get_peft_model(llama(), lora)


# ---------------------------------------------------------------- what is done to them


def with_hooks(model: Model) -> Model:
    """accelerate's hooks on every module: they move the inputs to where the weights are."""
    from accelerate import dispatch_model

    return dispatch_model(model, {"": "cpu"}, force_hooks=True)


def offloaded(model: Model) -> Model:
    """accelerate's hooks that put each weight in place before a layer's call, and take it away after."""
    from accelerate import cpu_offload

    return cpu_offload(model, torch.device("cpu"))


def quantised(model: Model) -> Model:
    """The layers of the MLPs with int8 weights; the others stay bf16."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(
        model, Int8WeightOnlyConfig(), filter_fn=lambda module, name: isinstance(module, nn.Linear) and "mlp" in name
    )
    return model


def dequantised(model: Model) -> Model:
    """The float64 model of what `quantised` would make."""
    model = quantised(model)
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and type(layer.weight) is not nn.Parameter:
            layer.weight = nn.Parameter(layer.weight.dequantize(), requires_grad=False)
    return model.double()


def data_parallel(model: Model) -> Model:
    return nn.parallel.DistributedDataParallel(model)


def sharded(model: Model) -> Model:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def exactly_data_parallel(model: Model) -> Model:
    return data_parallel(model.double())


def exactly_sharded(model: Model) -> Model:
    return sharded(model.double())


def autocast() -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16)


CASES = {
    "llama": Case(llama),
    "gpt2": Case(gpt2),
    "bert": Case(bert),
    "t5": Case(t5),
    "mixtral": Case(mixtral),
    "qwen2-moe": Case(qwen_moe),
    "llama-autocast": Case(llama, weights=torch.float32, around=autocast),
    "llama-lora": Case(llama_with_lora),
    "llama-accelerate": Case(llama, before=with_hooks),
    "llama-patch-accelerate": Case(llama, after=with_hooks),
    "llama-offload": Case(llama, before=offloaded, trains=False),
    "llama-int8": Case(llama, before=quantised, exact=dequantised),
    "llama-patch-int8": Case(llama, after=quantised, exact=dequantised, fallbacks=frozenset({"tensor type"})),
    "llama-ddp": Case(llama, before=data_parallel, exact=exactly_data_parallel, ranks=2),
    "llama-patch-ddp": Case(llama, after=data_parallel, exact=exactly_data_parallel, ranks=2),
    "llama-fsdp2": Case(llama, before=sharded, exact=exactly_sharded, ranks=2),
    "llama-patch-fsdp2": Case(llama, after=sharded, exact=exactly_sharded, ranks=2),
}

# ---------------------------------------------------------------- running them


def base_model(case: Case) -> Model:
    torch.manual_seed(0)
    return case.build().to(case.weights).train()


def batch(rank: int) -> dict[str, Tensor]:
    tokens = torch.randint(1, VOCABULARY, (2, BATCH, TOKENS), generator=torch.Generator().manual_seed(rank))
    return {"input_ids": tokens[0], "labels": tokens[1]}


def run(case: Case, model: Model, rank: int) -> dict[str, Tensor]:
    """The quantities to be compared, each as one float64 vector."""
    inputs = batch(rank)
    if not case.trains:
        with torch.no_grad(), case.around():
            output = model(**inputs)
        return {"logits": flat([output.logits]), "losses": flat([output.loss])}
    wanted = [each for each in model.parameters() if each.requires_grad]
    before = [whole(each) for each in wanted]
    optimizer = torch.optim.AdamW(wanted, lr=LEARNING_RATE, fused=True)
    logits, losses, gradients = [], [], []
    for _ in range(STEPS):
        with case.around():
            output = model(**inputs)
        output.loss.backward()
        logits.append(output.logits)
        losses.append(output.loss)
        gradients.append([whole(each.grad) for each in wanted if each.grad is not None])
        optimizer.step()
        optimizer.zero_grad()
    updates = [whole(each) - was for each, was in zip(wanted, before, strict=True)]
    return {
        "logits": flat(logits[:1]),
        "losses": flat(losses),
        "gradients": flat(gradients[0]),
        "updates": flat(updates),
    }


def whole(tensor: Tensor) -> Tensor:
    """A copy in float64, of all ranks' parts where it is sharded."""
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().double().clone()


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([each.detach().double().reshape(-1) for each in tensors])


def compare(case: Case, table_directory: Path, rank: int) -> Outcome:
    """The three runs of one rank."""
    base = base_model(case)
    exact = run(case, case.exact(copy.deepcopy(base)), rank)
    torchs = run(case, case.after(case.before(copy.deepcopy(base))), rank)
    table = hktune.load(table_directory, allow_modelled=True)
    model = case.before(copy.deepcopy(base))
    report = hktune.patch(model, quiet=True)
    served = run(case, case.after(model), rank)
    stats = table.stats()
    return Outcome(
        exact, torchs, served, str(report), len(report), len(report.left), stats.hits + stats.near_hits, stats.fallbacks
    )


def work(rank: int, name: str, folder: Path) -> None:
    """A process of a distributed case."""
    torch.set_num_threads(1)
    case = CASES[name]
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # whatever this machine's name leads to
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=case.ranks)
    try:
        outcome = compare(case, folder / "table", rank)
        if rank == 0:
            torch.save(outcome, folder / "outcome.pt")
    finally:
        dist.destroy_process_group()


def tune(case: Case, folder: Path, trials: int) -> None:
    """Record the shapes that one process of `case` calls, and tune them."""
    model = base_model(case)
    if case.ranks == 1:
        model = case.after(case.before(model))
    with hktune.record(folder / "shapes.yaml"):
        run(case, model, 0) if case.ranks == 1 else model(**batch(0))
    words = [
        "tune",
        "--fresh",
        "--shapes",
        str(folder / "shapes.yaml"),
        "--device",
        "emulated",
        "--trials",
        str(trials),
    ]
    if run_command([*words, "--strategy", "random", "--out", str(folder / "table")]) not in (0, 1):
        raise SystemExit("the tuning failed: its last lines say why")


def outcome_of(name: str, folder: Path, trials: int, reuse: bool) -> Outcome:
    folder.mkdir(parents=True, exist_ok=True)
    case = CASES[name]
    if not (reuse and (folder / "table" / "table.json").exists()):
        tune(case, folder, trials)
    if case.ranks == 1:
        return compare(case, folder / "table", 0)
    (folder / "store").unlink(missing_ok=True)
    torch.multiprocessing.spawn(work, (name, folder), nprocs=case.ranks)
    return torch.load(folder / "outcome.pt", weights_only=False)


# ---------------------------------------------------------------- saying what came out


def error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def row(name: str, outcome: Outcome) -> tuple[str, bool]:
    """A line of the table of results, and whether all of it is within what the formats cost."""
    cells, good = [], set(outcome.fallbacks) <= CASES[name].fallbacks and outcome.hits > 0
    for quantity in ("logits", "losses", "gradients", "updates"):
        if quantity not in outcome.exact:
            cells.append("-")
            continue
        torchs = error(outcome.torchs[quantity], outcome.exact[quantity])
        served = error(outcome.served[quantity], outcome.exact[quantity])
        good = good and served <= 2 * torchs + ROUNDING
        cells.append(f"{torchs:.1e} / {served:.1e}")
    left = ", ".join(f"{why}: {count}" for why, count in sorted(outcome.fallbacks.items())) or "none"
    told = [name, f"{outcome.layers} / {outcome.left}", str(outcome.hits), left, *cells, "yes" if good else "NO"]
    return f"| {' | '.join(told)} |", good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--trials", type=int, default=2, help="configs tried for each shape")
    parser.add_argument("--out", type=Path, help="where shapes and tables go; default: a temporary folder")
    parser.add_argument("--reuse", action="store_true", help="take the tables that an earlier run left in --out")
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        for name in options.cases or CASES:
            outcome = outcome_of(name, folder / name, options.trials, options.reuse)
            rows.append(row(name, outcome))
            print(f"{name}: {outcome.patched}\n{rows[-1][0]}", flush=True)
    print("| case | patched / left | served | torch's | logits | losses | gradients | updates | holds |")
    print(f"|{'---|' * 9}")
    print("\n".join(line for line, _ in rows))
    sys.exit(0 if all(good for _, good in rows) else 1)


if __name__ == "__main__":
    main()
