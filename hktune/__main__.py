"""`python -m hktune` is `hktune`."""

import sys

from hktune.entry import main

if __name__ == "__main__":
    sys.exit(main())
