"""Train, translate and measure the demosaicking networks: `python examples/demosaicnet/run.py --help`."""

import sys

from shortcutv2v.cli import main

if __name__ == "__main__":
    sys.exit(main(adapter="demosaicnet"))
