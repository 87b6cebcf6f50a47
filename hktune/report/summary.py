"""What a person reads when a run is over: the best of every shape, what tuning gained, what failed and why."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import geometric_mean

from rich.console import Console

from hktune.core.command_words import command_line, words_of
from hktune.core.config import Config
from hktune.core.outcome import Source, Status
from hktune.core.trial import Trial
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.report.columns import Column, print_columns, print_line, print_prose
from hktune.report.failures import print_failures
from hktune.report.intervals import interval, interval_meaning, millijoules
from hktune.report.operations import given_name, problem_columns, shared_product
from hktune.space import Spaces
from hktune.tuning.gain import Yardstick
from hktune.tuning.run_summary import RunSummary


def print_summary(console: Console, summary: RunSummary) -> None:
    """Print the closing summary of a run."""
    what = "kernel" if all(trial.is_kernel for trial in summary.best.values()) else "kernel or algorithm"
    print_prose(console, f"best {shared_product(summary.names)}{what} per shape; {_source(summary)}")
    _print_best(console, summary)
    _print_gain(console, summary)
    _print_configs(console, summary)
    print_failures(console, [trial for own in summary.rows.values() for trial in own], summary.directory, summary.again)
    _print_without_kernel(console, summary)
    _print_end(console, summary)


def _source(summary: RunSummary) -> str:
    """Whether times are measured or modelled, and of what."""
    sources = {trial.source for trial in summary.best.values()}
    devices = ", ".join(sorted({trial.device or "of an unknown device" for trial in summary.best.values()}))
    if sources == {Source.MODELLED}:
        return f"every time is modelled ({devices}), none is measured"
    if sources == {Source.MEASURED}:
        return f"every time is measured ({devices})"
    return f"measured and modelled times ({devices}): see each row" if sources else "none was found"


def _print_best(console: Console, summary: RunSummary) -> None:
    best = [summary.best.get(problem) for problem in summary.names]
    rows = list(summary.rows.values())
    failed = [sum(trial.status is not Status.OK for trial in own) for own in rows]

    def gains(yardstick: Yardstick, digits: int = 2) -> list[str]:
        return [_ratio(yardstick.gain(trial) if trial else None, digits) for trial in best]

    several = len({trial.source for trial in summary.best.values()}) > 1
    columns = [
        Column("shape", [given_name(name, problem) for problem, name in summary.names.items()], folds=True),
        *problem_columns(list(summary.names)),
        Column("time\nus", [f"{trial.time_us:.1f}" if trial else "none" for trial in best], right=True),
        Column("low..high", [_interval(trial) if trial else "" for trial in best], rank=4, right=True),
        Column("ties", [str(summary.ties.get(problem) or "") for problem in summary.names], rank=5, right=True),
        Column("TFLOP/s", [_tflops(trial) if trial else "" for trial in best], rank=5, right=True),
        Column("vs\nvendor", [_ratio(_vs_vendor(trial), 3) for trial in best], rank=1, right=True),
        *(Column(f"vs\n{each.name}", gains(each, 3), rank=1, right=True) for each in summary.rivals),
        *(Column(f"vs\n{each.name}", gains(each), rank, right=True) for rank, each in enumerate(summary.yardsticks)),
        Column("energy\nmJ", [millijoules(trial.energy_j) if trial else "" for trial in best], rank=6, right=True),
        Column("tried", [str(len(own)) for own in rows], rank=6, right=True),
        Column("may\ngain", [_percent(summary.chance_of_gain.get(problem)) for problem in summary.names], 9, True),
        Column("failed", [str(count or "") for count in failed], rank=7, right=True),
        Column("config", [trial.config_id[:8] if trial else "" for trial in best]),
        Column("time is", [str(trial.source) if trial and several else "" for trial in best]),
        Column("limit", [_limit(trial) if trial else "" for trial in best], rank=8),
    ]
    print_columns(console, columns)
    if any(trial and trial.source is Source.MODELLED and trial.time_us_low for trial in best):
        print_prose(console, interval_meaning(), indent="  ")


def _print_gain(console: Console, summary: RunSummary) -> None:
    """What tuning gained over each yardstick in all: the geometric mean of the shapes that have both."""
    ratios = {("the vendor library", "vendor"): [_vs_vendor(trial) for trial in summary.best.values()]}
    for each in (*summary.rivals, *summary.yardsticks):
        ratios[each.meaning, each.name] = [each.gain(trial) for trial in summary.best.values()]
    said: list[str] = []
    raced = {each.name for each in summary.rivals}
    bounds = {each.name: each.bounds for each in summary.yardsticks}
    for (meaning, name), gains in ratios.items():
        known = [gain for gain in gains if gain is not None]
        if known:
            few = f", over {_shapes(len(known))}" if len(known) < len(summary.best) else ""
            few += f", at worst {min(known):.3f}" if name in raced else ""
            few += f", or more: {bounds[name]} left early" if bounds.get(name) else ""
            as_fast_as = "as" if said else "times as fast as"
            said.append(f"{geometric_mean(known):.2f} {as_fast_as} {meaning} (vs {name}{few})")
    if said:
        word = " and ".join(sorted({str(trial.source) for trial in summary.best.values()}))
        print_prose(console, f"geometric mean of {_shapes(len(summary.best))}, {word}: {', '.join(said)}", indent="  ")


def _print_configs(console: Console, summary: RunSummary) -> None:
    """Every config of a best kernel, whole, by what differs from the default."""
    best = summary.best.values()
    kernels = [trial for trial in best if trial.is_kernel]
    configs = sorted({(trial.config_id[:8], trial.config, trial.template_sha256 or "") for trial in kernels})
    if configs:
        print_prose(console, "configs, each by what differs from the default:")
    for config_id, config, template in configs:
        words = _words(summary.spaces, config, template)
        print_prose(console, f"{config_id}  {' '.join(words)}", indent=" " * 10)
    _print_algorithms(console, [trial for trial in best if not trial.is_kernel])
    if configs:
        whole = command_line("hktune", "explain", f"{summary.directory}:{configs[0][0]}")
        print_line(console, f"one of them whole: {whole}")


def _print_algorithms(console: Console, best: Sequence[Trial]) -> None:
    """The algorithms of the vendor's library that are the best of a shape."""
    if best:
        print_prose(console, "algorithms of the vendor's library:")
    for config_id, config in sorted({(trial.config_id[:8], trial.config) for trial in best}):
        algorithm = VendorAlgorithm.of_config(Config.from_json(config))
        print_prose(console, f"{config_id}  {algorithm}", indent=" " * 10)


def _words(spaces: Spaces, config: str, template: str) -> list[str]:
    """What differs from the default of the config's own space; the name of the template, and all of the config, where
    that is not the space that was searched."""
    space, words = spaces.of(template or None), words_of(Config.from_json(config))
    if space is not spaces.own:
        return [f"{space.template.name}:", *words]
    default = words_of(space.config({}))
    return [word for word in words if word not in default] or ["the default"]


def _print_without_kernel(console: Console, summary: RunSummary) -> None:
    """The shapes that take the vendor path, each with the reason; those that nothing was tried for are counted."""
    untried = 0
    for problem in summary.without_kernel:
        given = given_name(summary.names[problem], problem)
        name = f"{given} ({problem})" if given else str(problem)
        if own := summary.rows[problem]:
            reason = f"no kernel for {name}, it takes the vendor path: {own[0].detail}"
            print_prose(console, reason, indent="  ")
        untried += not own
    if untried:
        print_prose(console, f"nothing was tried yet for {untried} of {_shapes(len(summary.names))}", indent="  ")


def _shapes(number: int) -> str:
    return f"{number} shape{'' if number == 1 else 's'}"


def _print_end(console: Console, summary: RunSummary) -> None:
    ended = "interrupted" if summary.interrupted else "stopped" if summary.stopped else None
    kept = "its trials cannot be read any more" if summary.trials_lost else "everything so far is kept"
    how = "correct what is said below, then run" if summary.to_correct else "run"
    word = f"{ended}, {kept}; {how} the same command to go on" if ended else "done"
    others = f" and {summary.others} of other shapes" if summary.others else ""
    counts = f"{len(summary.trials) - summary.others} trials of {_shapes(len(summary.names))}{others}"
    new = f"{summary.variants} new variants compiled and proved in {summary.elapsed_s:.0f} s"
    print_prose(console, f"{word}: {counts}; {new}")
    if used := summary.usage:
        gpus = "GPU" if used.gpus == 1 else f"{used.gpus} GPUs together"
        seconds = f"{used.busy_s:.1f} s in timed rounds, {used.asked_s:.1f} s in all with proofs and captures"
        print_prose(console, f"{gpus}: {seconds}; {used.workers_lost} workers lost")
    print_line(console, _left_behind(summary))
    show = summary.best and not summary.no_table
    following = ("hktune", "table", "show", summary.directory) if show else summary.command
    print_line(console, f"next: {command_line(*following)}")


def _left_behind(summary: RunSummary) -> str:
    """What of the run is in its directory."""
    kinds = [] if summary.trials_lost else ["trials"]
    kinds += [] if summary.no_table else ["table", "code objects"]
    *first, last = kinds or ["nothing"]
    verb = "are" if kinds else "is"
    return (
        f"{', '.join(first)}{' and ' if first else ''}{last} {verb} in {summary.directory}"
        f"{', no table was written' if summary.no_table else ''}"
    )


def _vs_vendor(trial: Trial | None) -> float | None:
    return trial.baseline_us / trial.time_us if trial and trial.baseline_us and trial.time_us else None


def _interval(trial: Trial) -> str:
    return interval(trial.time_us_low, trial.time_us_high)


def _percent(chance: float | None) -> str:
    return f"{chance:.0%}" if chance is not None else ""


def _ratio(ratio: float | None, digits: int = 2) -> str:
    return f"{ratio:.{digits}f}" if ratio is not None else ""


def _tflops(trial: Trial) -> str:
    return f"{trial.problem.flops / trial.time_us * 1e-6:.0f}" if trial.time_us else ""


def _limit(trial: Trial) -> str:
    """What a modelled time is bound by; of a measured one, what its clock was."""
    return (trial.throttled if trial.source is Source.MEASURED else trial.detail) or ""
