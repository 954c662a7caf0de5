"""`python -m shortcutv2v`: the command line."""

import sys

from shortcutv2v.cli import main

if __name__ == "__main__":
    sys.exit(main())
