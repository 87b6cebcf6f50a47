"""`python tune.py --shapes shapes.yaml` is `hktune tune --shapes shapes.yaml`."""

import sys

from hktune.entry import main

if __name__ == "__main__":
    sys.exit(main("tune"))
