"""Train, translate and measure the Unsup generator: `python examples/unsup/run.py --help`."""

import sys

from shortcutv2v.cli import main

if __name__ == "__main__":
    sys.exit(main(adapter="unsup"))
