"""The command line: `shortcutv2v translate | train | measure | demo`."""

from shortcutv2v.cli.main import main

__all__ = ["main"]
