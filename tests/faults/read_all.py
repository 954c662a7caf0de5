"""Convert every file named on standard input and print a line for each: what became of it. Run as a process."""

from __future__ import annotations

import faulthandler
import itertools
import sys
import warnings
from pathlib import Path
from typing import Any

import av
from torch import Tensor

from shortcutv2v import video
from shortcutv2v.errors import VideoError


def outcome(path: Path) -> str:
    """Return "refused", "right", or what went wrong."""
    target = path.parent / "out.mp4"
    target.unlink(missing_ok=True)
    try:
        count = video.convert(path, target, _same, preset="ultrafast", progress=False)
    except VideoError as error:
        line = str(error)
        if "\n" in line or (path.name not in line and "out.mp4" not in line):
            return f"a message that is no line about the file: {line!r}"
        return "a target in spite of an error" if target.exists() else "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if left := [name for name in path.parent.iterdir() if name.name.endswith(".part")]:
        return f"left behind: {left}"
    with video.open(target) as clip:
        written = sum(1 for _ in clip)
    theirs = _plain(path)
    if not count == written == theirs:
        return f"{count} frames said, {written} written, {theirs} read by FFmpeg"
    return "right"


def _same(frame: Tensor) -> Tensor:
    return frame


def _plain(path: Path) -> int:
    """Return the frames that FFmpeg reads of the same stream from the first key frame on, without any strictness."""
    with av.open(str(path), metadata_errors="replace") as file:
        usable = [s for s in file.streams.video if s.codec_context is not None]
        stream = max(usable, key=lambda s: s.width * s.height)
        packets = itertools.dropwhile(lambda packet: not packet.is_keyframe, file.demux(stream))
        return sum(_frames(packet) for packet in packets if packet.size or packet.dts is None)


def _frames(packet: Any) -> int:
    try:
        return len(packet.decode())
    except av.error.FFmpegError:
        return 0


if __name__ == "__main__":
    faulthandler.enable()
    warnings.simplefilter("ignore")
    for name in sys.stdin:
        print("begin", name.strip(), flush=True)
        print("end", outcome(Path(name.strip())).replace("\n", " "), flush=True)
