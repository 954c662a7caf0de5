"""The command line: `shortcutv2v --help` lists its commands."""

from shortcutv2v.cli.main import main

__all__ = ["main"]
