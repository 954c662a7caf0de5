"""Clips of many formats, and damage to them from a seeded generator."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

# fmt: off
CLIPS = {  # name: codec, pixel format, options, sound
    "a.mp4": ("libx264", "yuv420p", {"g": "6"}, "aac"),
    "faststart.mp4": ("libx264", "yuv420p", {"movflags": "faststart"}, "aac"),
    "pieces.mp4": ("libx264", "yuv420p", {"movflags": "frag_keyframe+empty_moov"}, "aac"),
    "a.mkv": ("libx264", "yuv420p", {"g": "6"}, "flac"),
    "a.webm": ("libvpx", "yuv420p", {}, "libopus"),
    "a.avi": ("mpeg4", "yuv420p", {"bf": "2"}, "mp2"),
    "jpeg.avi": ("mjpeg", "yuvj420p", {}, "pcm_s16le"),
    "a.ts": ("libx264", "yuv420p", {"g": "6"}, "mp2"),
    "a.mpg": ("mpeg2video", "yuv420p", {}, "mp2"),
    "a.mov": ("prores_ks", "yuv422p10le", {}, "pcm_s16le"),
    "png.mov": ("png", "rgb24", {}, None),
    "a.flv": ("flv1", "yuv420p", {}, "aac"),
    "a.wmv": ("wmv2", "yuv420p", {}, None),
    "a.gif": ("gif", "rgb8", {}, None),
    "a.y4m": ("wrapped_avframe", "yuv420p", {}, None),
    "a.h264": ("libx264", "yuv420p", {"g": "6"}, None),
    "ffv1.mkv": ("ffv1", "yuv420p", {}, None),
}
# fmt: on
_KINDS = {"a.wmv": "asf", "a.y4m": "yuv4mpegpipe"}
_MUXER = {"movflags"}


def make(folder: Path) -> list[Path]:
    """Write every clip: 16 frames of drifting noise, and sound."""
    return [_make(folder / name, *how) for name, how in CLIPS.items()]


def _make(path: Path, codec: str, pixels: str, options: dict[str, str], sound: str | None) -> Path:
    generator = np.random.default_rng(0)
    field = generator.integers(0, 256, (48, 64 + 16, 3), dtype=np.uint8)
    own = {key: value for key, value in options.items() if key in _MUXER}
    with av.open(str(path), "w", format=_KINDS.get(path.name), options=own) as out:
        stream: Any = out.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pixels
        stream.options = {key: value for key, value in options.items() if key not in _MUXER}
        voice: Any = out.add_stream(sound, rate=48000, layout="stereo") if sound else None
        for tick in range(16):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(field[:, tick : tick + 64]), format="rgb24")
            frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base = tick, Fraction(1, 25)
            out.mux(stream.encode(frame))
        for block in range(30 if voice else 0):
            tone = (generator.standard_normal((2, 1024)) * 0.1).astype(np.float32)
            part = av.AudioFrame.from_ndarray(tone, format="fltp", layout="stereo")
            part.sample_rate, part.time_base, part.pts = 48000, Fraction(1, 48000), block * 1024
            for converted in av.AudioResampler(format=voice.format, layout="stereo", rate=48000).resample(part):
                out.mux(voice.encode(converted))
        out.mux(stream.encode(None))
        if voice:
            out.mux(voice.encode(None))
    return path


def mutate(data: bytes, draw: random.Random) -> bytes:
    """Damage a file in one of the ways that disks, networks and programs do."""
    kind = draw.choice(["cut", "flip", "header", "zeros", "drop", "double", "insert", "swap", "tail"])
    at, size = draw.randrange(len(data)), draw.choice([1, 7, 64, 512, 4096])
    if kind == "cut":
        return data[: max(1, at)]
    if kind == "drop":
        return data[:at] + data[at + size :]
    if kind == "double":
        return data[: at + size] + data[at:]
    if kind == "insert":
        return data[:at] + draw.randbytes(size) + data[at:]
    if kind == "tail":
        return data + draw.randbytes(size)
    if kind == "swap":
        other = draw.randrange(len(data))
        a, b = sorted((at, other))
        return data[:a] + data[b:] + data[a:b]
    changed = bytearray(data)
    if kind == "header":
        for _ in range(draw.choice([1, 4])):
            changed[draw.randrange(min(600, len(data)))] = draw.randrange(256)
    for place in range(at, min(len(data), at + size)) if kind in {"flip", "zeros"} else ():
        changed[place] = 0 if kind == "zeros" else changed[place] ^ draw.randrange(256)
    return bytes(changed)
