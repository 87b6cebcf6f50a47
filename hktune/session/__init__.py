"""What Python calls: tune values, and use what was found. May import every room but commands.

result = hktune.tune(["4096x4096x4096", (16, 4608, 3584)], trials=48)
result.best("4096x4096x4096")       # the row of the fastest proved kernel
result.trials                       # every row, as a pandas DataFrame
result.load()                       # hktune.linear and matmul run what was found
"""

from hktune.session.given_options import TuneOptions
from hktune.session.result import Result
from hktune.session.tuned import tune
from hktune.tuning.callbacks import StopTuning

__all__ = ["Result", "StopTuning", "TuneOptions", "tune"]
