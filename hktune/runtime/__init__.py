"""Production's side: a table's kernels, called on torch's tensors. May import core, device, dispatch and objects.

table = hktune.load("results/gfx950-emulated", allow_modelled=True)
y = hktune.linear(x, weight)        # x [..., K], weight [N, K] as nn.Linear holds it
c = hktune.matmul(a, b)             # a [..., K], b [K, N], either of which may be a transposed view
hktune.patch(model)                 # every nn.Linear of a model
with hktune.enable(): ...           # torch's own products, with no module patched
"""

from hktune.runtime.counts import Fallback, FallbackWarning, Stats
from hktune.runtime.current import gated_linear, linear, load, matmul, stats, unload
from hktune.runtime.enabled import disable, enable
from hktune.runtime.grouped import gated_grouped_mm, grouped_mm, scaled_grouped_mm
from hktune.runtime.layers import Linear
from hktune.runtime.loaded import LoadedTable
from hktune.runtime.patching import PatchReport, patch, unpatch
from hktune.runtime.recorder import Recorder, record
from hktune.runtime.scaled_operator import scaled_mm

__all__ = [
    "Fallback",
    "FallbackWarning",
    "Linear",
    "LoadedTable",
    "PatchReport",
    "Recorder",
    "Stats",
    "disable",
    "enable",
    "gated_grouped_mm",
    "gated_linear",
    "grouped_mm",
    "linear",
    "load",
    "matmul",
    "patch",
    "record",
    "scaled_grouped_mm",
    "scaled_mm",
    "stats",
    "unload",
    "unpatch",
]
