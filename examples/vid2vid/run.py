"""Train, translate and measure vid2vid's generator: `python examples/vid2vid/run.py --help`."""

import sys

from shortcutv2v.cli import main

if __name__ == "__main__":
    sys.exit(main(adapter="vid2vid"))
