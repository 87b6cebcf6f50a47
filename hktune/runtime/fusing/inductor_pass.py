"""`graph_fusion` and `scaled_fusion` as a pass of Inductor's, from the first `patch(model, fuse=True)` of a process on.

Inductor has one place for a pass of others. What was there is called first. Graphs without a linear of hktune's are
left as they are.
"""

from __future__ import annotations

import sys
from typing import Any

from torch.fx import Graph

from hktune.runtime import operators
from hktune.runtime.enabled import enabled_entries
from hktune.runtime.fusing import graph_fusion, scaled_fusion


def use(at_once: bool = False) -> None:
    """Have Inductor fuse hktune's linears in what it compiles from now on. It is not imported for that: a program that
    compiles nothing does without. With `at_once` its settings are: where there is no linear of hktune's, a tracer never
    says that it is there."""
    if _install not in operators.when_traced:
        operators.when_traced.append(_install)
    if at_once:
        _install()


def _install() -> None:
    """Nothing happens where Inductor is not there, or has no such passes (torch before 2.6)."""
    config: Any = sys.modules.get("torch._inductor.config")
    if config is None or type(config.post_grad_custom_pre_pass).__name__ == _NAME:
        return
    try:
        from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
    except ImportError:
        return
    before = config.post_grad_custom_pre_pass

    def call(self: object, graph: Graph) -> None:
        del self
        if before is not None:
            before(graph)
        graph_fusion.fuse(graph)
        scaled_fusion.fuse(graph)

    def uuid(self: object) -> object:
        """What Inductor's caches know it by: a scaled product in a graph does not say what tables have. None, and so
        nothing is kept, where the pass before has no such."""
        del self
        files = get_hash_for_files((graph_fusion.__file__, scaled_fusion.__file__))
        own = files, enabled_entries(), operators.current_entries()
        others = before.uuid() if isinstance(before, CustomGraphPass) else None
        return own if before is None else None if others is None else (own, others)

    config.post_grad_custom_pre_pass = type(_NAME, (CustomGraphPass,), {"__call__": call, "uuid": uuid})()


_NAME = "HktuneGraphFusion"
