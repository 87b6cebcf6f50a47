"""A language model of transformers, served whole from a table: decode and prefill steps on one NVIDIA GPU.

    python benchmarks/served_model.py --record shapes.yaml             # what its steps multiply
    hktune tune --device cuda --shapes shapes.yaml --out DIR
    python benchmarks/served_model.py DIR                              # the steps, by that table

`--model` has the sizes of a published one, and random weights: Llama-3-8B in bfloat16; the same with weights in float8
(e4m3), a scale for each of their rows, and activations quantised row by row; Qwen3-30B-A3B, whose experts are grouped
products. A decode step is one token of each sequence, behind a cache of `--context` tokens; a prefill step is one
sequence, and the logits of its last token. hktune's side is the same parameters after `hktune.patch(model, fuse=True)`
and under `hktune.enable()`. Two ways are timed:

    graph      the model as it is, its kernels captured as a CUDA graph
    compiled   torch.compile, captured as a CUDA graph, of the first `--compiled-layers` layers. `--mode` is that of
               torch's side, hktune's is the default

All four steps take turns of at least 100 ms, in another order each round. Printed are the medians, torch's time over
hktune's with its 99 % interval, how much of torch's step its products take, and how far the logits are from the same
model in float64 (norm of the difference over the norm), torch's and hktune's.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers.cache_utils import Cache, StaticLayer
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

import hktune
from hktune.measure.statistics import median_interval

CONFIDENCE = 0.99
TURN_MS = 100.0
ATTENTION = "whole_cache"
PRODUCTS = ("gemm", "nvjet", "cutlass", "splitk", "hktune", "gemv", "triton_mm", "triton_tem")
"""What names of kernels that multiply matrices have in them."""
LLAMA, QWEN = "Llama", "Qwen3Moe"
LLAMA_3_8B = {
    "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8,
}  # fmt: skip
TINY = {
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip
OF_EXPERTS = {"moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8}
QWEN3_30B_A3B = {
    "vocab_size": 151936, "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, **OF_EXPERTS,
}  # fmt: skip
MODELS = {
    "llama-3-8b": (LLAMA, LLAMA_3_8B),
    "llama-3-8b-float8": (LLAMA, LLAMA_3_8B),
    "qwen3-30b-a3b": (QWEN, QWEN3_30B_A3B),
    "tiny": (LLAMA, TINY),
    "tiny-float8": (LLAMA, TINY),
    "tiny-experts": (QWEN, TINY | {"moe_intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2}),
}
"""The class of transformers, and its sizes."""
E4M3_MAX = 448.0

Model = Any
Step = Callable[[], Tensor]


def whole_cache(
    module: Model, query: Tensor, key: Tensor, value: Tensor, mask: None, scaling: float, **named: object
) -> tuple[Tensor, None]:
    """Attention over all of the cache, which every sequence has filled: no mask, and so the flash kernel."""
    del module, mask, named
    causal = query.shape[2] > 1
    is_grouped = key.shape[1] != query.shape[1]
    attention = functional.scaled_dot_product_attention
    out = attention(query, key, value, is_causal=causal, scale=scaling, enable_gqa=is_grouped)
    return out.transpose(1, 2).contiguous(), None


def no_mask(*sizes: object, **named: object) -> None:
    del sizes, named


AttentionInterface.register(ATTENTION, whole_cache)
AttentionMaskInterface.register(ATTENTION, no_mask)


class FilledLayer(StaticLayer):  # type: ignore[misc]
    """Keys and values of a full context: a step writes those of its token in the last place, every time."""

    def update(self, key_states: Tensor, value_states: Tensor, *others: Any, **named: Any) -> tuple[Tensor, Tensor]:
        del others, named
        self.keys[:, :, -1:] = key_states
        self.values[:, :, -1:] = value_states
        return self.keys, self.values


@dataclass(frozen=True)
class Load:
    """What a step computes: `sequences` of `tokens` each; with one token, behind a cache of `context`."""

    sequences: int
    tokens: int
    context: int

    def __str__(self) -> str:
        return f"decode {self.sequences}" if self.tokens == 1 else f"prefill {self.tokens}"

    def arguments(self, model: Model) -> dict[str, Any]:
        """Of a call of `model`, random and the same each time."""
        device, random = model.device, torch.Generator(model.device).manual_seed(self.sequences + self.tokens)
        shape = (self.sequences, self.tokens)
        tokens = torch.randint(0, model.config.vocab_size, shape, device=device, generator=random)
        places = torch.arange(self.tokens, device=device).expand(shape)
        if self.tokens > 1:
            return {"input_ids": tokens, "position_ids": places, "use_cache": False, "logits_to_keep": 1}
        cache = Cache(layers=[self._layer(model, random) for _ in model.model.layers[: model.config.num_hidden_layers]])
        return {"input_ids": tokens, "position_ids": places + self.context - 1, "past_key_values": cache}

    def _layer(self, model: Model, random: torch.Generator) -> FilledLayer:
        config, layer = model.config, FilledLayer(self.context)
        shape = (self.sequences, config.num_key_value_heads, self.context, config.head_dim)
        past = [torch.randn(shape, device=model.device, dtype=model.dtype, generator=random) for _ in range(2)]
        layer.lazy_initialization(*past)
        layer.keys.copy_(past[0])
        layer.values.copy_(past[1])
        return layer


@contextmanager
def born_on(device: str) -> Iterator[None]:
    """Parameters are made there, as bf16."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


class Float8Linear(nn.Module):
    """A linear with weights in e4m3, a scale for each row of them, and for each row of what it is given."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = quantised(linear.weight)
        self.weight, self.scale = nn.Parameter(weight, requires_grad=False), nn.Buffer(scale.t())

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype is torch.float64:
            return functional.linear(x, self.weight * self.scale.t())
        rows, scale = quantised(x.reshape(-1, x.shape[-1]))
        b = self.weight.t()
        out = torch._scaled_mm(rows, b, scale, self.scale, out_dtype=x.dtype, use_fast_accum=True)
        return out.reshape(*x.shape[:-1], -1)


def quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """In e4m3, and the float32 scale [M, 1] of each row."""
    scale = rows.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / E4M3_MAX
    return (rows / scale).to(torch.float8_e4m3fn), scale


def model_of(name: str, layers: int | None, device: str) -> Model:
    torch.manual_seed(0)
    kind, sizes = MODELS[name]
    own = {"experts_implementation": "grouped_mm"} if kind is QWEN else {}
    make = getattr(transformers, f"{kind}Config")
    config = make(**sizes, attn_implementation=ATTENTION, tie_word_embeddings=False, **own)
    if layers is not None:
        config.num_hidden_layers = layers
    with born_on(device):
        model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    if name.endswith("float8"):
        for parent in [*model.model.layers.modules()]:
            for child, linear in parent.named_children():
                if isinstance(linear, nn.Linear):
                    setattr(parent, child, Float8Linear(linear))
    return model


def with_same_parameters(model: Model) -> Model:
    kept = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(each): each for each in kept})


def step_of(model: Model, load: Load, call: Callable[..., Any] | None = None) -> Step:
    """Of its logits, float32; `call` is the model, or what torch.compile made of it."""
    arguments = load.arguments(model)
    called = model if call is None else call
    return lambda: called(**arguments).logits


@contextmanager
def cut(models: Sequence[Model], layers: int) -> Iterator[None]:
    """Only the first layers are computed."""
    before = models[0].config.num_hidden_layers
    for model in models:
        model.config.num_hidden_layers = min(layers, before)
    try:
        yield
    finally:
        for model in models:
            model.config.num_hidden_layers = before


def captured(step: Step) -> Step:
    """`step` as a replay of a graph."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(2):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()

    def replay() -> Tensor:
        graph.replay()
        return out

    replay.of = step  # type: ignore[attr-defined]  # whose operands must live as long
    return replay


def turn_ms(step: Step, repeats: int) -> float:
    """The mean of `repeats` replays, one behind the other."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    step()
    start.record()
    for _ in range(repeats):
        step()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / repeats


def times_us(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Of each step in each round; who is first rotates."""
    names = list(steps)
    repeats = {name: max(1, round(TURN_MS / turn_ms(step, 2))) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        at = number % len(names)
        for name in names[at:] + names[:at]:
            times[name].append(1e3 * turn_ms(steps[name], repeats[name]))
    return times


def products_share(step: Step) -> tuple[float, float]:
    """How long the kernels of a replay run, us, and which part of that kernels run that multiply matrices."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize()
    taken = {each.key: float(each.self_device_time_total) for each in profile.key_averages()}
    of_products = sum(us for name, us in taken.items() if any(part in name.lower() for part in PRODUCTS))
    total = sum(taken.values())
    return total, of_products / total if total else float("nan")


def error(logits: Tensor, exact: Tensor) -> float:
    return float((logits.double() - exact).norm() / exact.norm())


def exact_logits(model: Model, loads: Sequence[Load]) -> list[Tensor]:
    """Of the same parameters in float64; a cache has bfloat16's values."""
    twin = copy.deepcopy(model).double()
    twin.set_experts_implementation("eager")  # torch's grouped product has no float64
    found = []
    for load in loads:
        arguments = load.arguments(model)
        cache = arguments.get("past_key_values")
        for layer in cache.layers if cache else ():
            layer.keys, layer.values = layer.keys.double(), layer.values.double()
        found.append(twin(**arguments).logits)
    return found


def compare(name: str, pair: tuple[Model, Model], load: Load, exact: Tensor, rounds: int, mode: str | None) -> None:
    """Prints a line about both models as they are, or as torch.compile makes them in `mode`."""
    torch._dynamo.reset()
    torchs, ours = pair
    if mode is not None:
        torchs, ours = torch.compile(torchs, mode=mode), torch.compile(ours)
    step = step_of(pair[0], load, torchs)
    errors, steps = [error(step(), exact)], [captured(step) if exact.is_cuda else step]
    with hktune.enable():
        step = step_of(pair[1], load, ours)
        before = hktune.stats()
        errors.append(error(step(), exact))
        after = hktune.stats()
        steps.append(captured(step) if exact.is_cuda else step)
    served = after.hits + after.near_hits - before.hits - before.near_hits
    left = sum(after.fallbacks.values()) - sum(before.fallbacks.values())
    said = f"| {name} | {load} | {served} / {left} | {errors[0]:.1e} / {errors[1]:.1e} |"
    if not exact.is_cuda:
        print(said, flush=True)
        return
    times = times_us(dict(zip(("torch", "hktune"), steps, strict=True)), rounds)
    ratios = [one / other for one, other in zip(times["torch"], times["hktune"], strict=True)]
    shares = [products_share(step) for step in steps]
    both = " / ".join(f"{median(each):,.0f}" for each in times.values())
    in_products = " / ".join(f"{total * share:,.0f}" for total, share in shares)
    print(f"{said} {both} | {median_interval(ratios, CONFIDENCE)} | {in_products} | {shares[0][1]:.2f} |", flush=True)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", metavar="DIR", help="a results directory of this device")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the shapes instead")
    parser.add_argument("--model", choices=MODELS, default="llama-3-8b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sequences", type=int, nargs="*", default=[1, 16, 64], metavar="N", help="of decode steps")
    parser.add_argument("--tokens", type=int, nargs="*", default=[512, 1024, 4096], metavar="N", help="of prefill")
    parser.add_argument("--ways", nargs="+", choices=("graph", "compiled"), default=("graph", "compiled"))
    parser.add_argument("--mode", default="default", help="of torch.compile, on torch's side")
    parser.add_argument("--layers", type=int, metavar="N")
    for name, default in (("context", 256), ("compiled-layers", 4), ("rounds", 12)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N")
    options = parser.parse_args()
    if (options.directory is None) == (options.record is None):
        parser.error("pass either a results directory DIR or --record FILE")
    loads = [Load(each, 1, options.context) for each in options.sequences]
    loads += [Load(1, each, 0) for each in options.tokens]
    model = model_of(options.model, options.layers, options.device)
    served = with_same_parameters(model)
    print(hktune.patch(served, fuse=True, quiet=True))
    if options.record:
        record(served, loads, options.record, options.ways)
        return
    hktune.load(options.directory, allow_modelled=options.device == "cpu")
    print(
        "| way | step | served / torch's | logits, torch / hktune | us, torch / hktune | ratio | in products | share |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for way in options.ways:
        layers = options.compiled_layers if way == "compiled" else model.config.num_hidden_layers
        mode = options.mode if way == "compiled" else None
        with cut((model, served), layers):
            name = f"{way}, {model.config.num_hidden_layers} layers"
            for load, exact in zip(loads, exact_logits(model, loads), strict=True):
                compare(name, (model, served), load, exact, options.rounds, mode)


def record(served: Model, loads: Sequence[Load], path: Path, ways: Sequence[str]) -> None:
    """The shapes of all steps, as these ways have them."""
    steps = [step_of(served, load) for load in loads]
    recorders = [hktune.record(path, compiled=way == "compiled") for way in ways]
    for recorder in recorders:
        with recorder:
            for step in steps:
                step()
        recorders[0].calls |= recorder.calls
    path.write_text(recorders[0].yaml(), encoding="utf-8")


if __name__ == "__main__":
    main()
