"""Train, translate and measure any network that spandrel recognises: `python examples/spandrel/run.py --help`."""

import sys

from shortcutv2v.cli import main

if __name__ == "__main__":
    sys.exit(main(adapter="spandrel"))
