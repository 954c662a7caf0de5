"""Options of some commands; those of the others stand in `main`."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_auto", "add_many", "add_tune"]


def add_auto(verb: argparse.ArgumentParser) -> None:
    """Add the options of `auto`, except those that all commands share."""
    verb.add_argument("source", type=Path, help="video or folder of frames")
    verb.add_argument("target", type=Path, help=".mp4, .mov, .mkv, .y4m, or a folder of frames")
    _add_search(verb, "what pays for this film, at most 30")
    verb.add_argument("--block", type=Path, metavar="FOLDER", help="a trained block, tried beside the others")
    verb.add_argument("--folder", type=Path, help="for auto.json, block and report (default: TARGET with suffix .auto)")
    verb.add_argument("--plan", type=Path, metavar="FILE", help="repeat the choice of an auto.json without searching")
    verb.add_argument("--frames", metavar="START:STOP", help="use this part of the film")
    verb.add_argument("--crf", type=float, default=16, help="H.264 quality, 0 is lossless (default: %(default)s)")
    verb.add_argument("--no-audio", action="store_true", help="leave the sound out")
    verb.add_argument("--no-report", dest="report", action="store_false", help="write no page")


def add_tune(verb: argparse.ArgumentParser) -> None:
    """Add the options of `tune`, except those that all commands share."""
    verb.add_argument("clips", type=Path, nargs="+", help="videos, folders of videos or folders of frames")
    _add_search(verb, "10", minutes=10.0)
    about = "for auto.json, the best block and tune.html (default: %(default)s)"
    verb.add_argument("--folder", type=Path, default=Path("tuned"), help=about)


def _add_search(verb: argparse.ArgumentParser, usual: str, minutes: float | None = None) -> None:
    verb.add_argument("--quality", metavar="DB", help="PSNR to the teacher to hold, see translate (default: 40)")
    verb.add_argument("--speed", type=float, help="instead of a quality, times as fast as the teacher")
    verb.add_argument("--minutes", type=float, default=minutes, help=f"of the search (default: {usual})")


def add_many(verb: argparse.ArgumentParser) -> None:
    """Add the options of live sources and of folders of films."""
    live = verb.add_argument_group("live", "a camera, a stream, or a file at its own pace, never behind it")
    live.add_argument(
        "--live", action="store_true", help="SOURCE is camera:0, an address, - or a file; drop late frames"
    )
    live.add_argument(
        "--deadline", metavar="TIME", help="time that a frame may take, such as 33ms; choose quality by it"
    )
    live.add_argument("--at-worst", type=float, metavar="DB", help="quality may fall to this for the deadline's sake")
    live.add_argument("--fast-block", type=Path, metavar="FOLDER", help="another block for when time is short")
    verb.add_argument("--shard", metavar="I/N", help="of a folder of films, do the I-th of N parts, such as 2/4")
    verb.add_argument("--ray", metavar="ADDRESS", help="share films out on a Ray cluster: auto, local or HOST:PORT")
