"""Train, translate and measure VToonify: `python examples/vtoonify/run.py --help`."""

import sys

from shortcutv2v.cli import main

if __name__ == "__main__":
    sys.exit(main(adapter="vtoonify"))
