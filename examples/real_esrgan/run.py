"""Train, translate and measure the Real-ESRGAN networks: `python examples/real_esrgan/run.py --help`."""

import sys

from shortcutv2v.cli import main

if __name__ == "__main__":
    sys.exit(main(adapter="real_esrgan"))
