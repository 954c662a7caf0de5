"""Tiny clips in which every frame says its own number: 8 bits as black and white blocks, readable after compression."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

BITS = 8


def numbered(number: int, height: int = 32, width: int = 64) -> Tensor:
    """Frame `number`: uint8 (3, H, W), its bits from left to right, on a colour that drifts."""
    frame = torch.zeros(3, height, width, dtype=torch.uint8)
    frame[0], frame[2] = 60 + number % 64, 120 - number % 64
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        frame[:, height // 4 : height * 3 // 4, left:right] = 235 if number >> bit & 1 else 20
    return frame


def number_of(frame: Tensor) -> int:
    """The number written in a frame by `numbered`, at any size."""
    _, height, width = frame.shape
    row = frame[:, height * 3 // 8 : height * 5 // 8].float().mean(dim=(0, 1))
    return sum(int(row[int((bit + 0.5) * width / BITS)] > 128) << bit for bit in range(BITS))


def numbers(frames: Iterable[Tensor]) -> list[int]:
    return [number_of(frame) for frame in frames]


def encode(
    path: Path,
    count: int = 12,
    *,
    size: tuple[int, int] = (32, 64),
    rate: Fraction | int = 25,
    base: Fraction | None = None,
    ticks: Sequence[int] | None = None,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    sound: Sequence[str] = (),
    container: dict[str, str] | None = None,
    pixels: str = "yuv420p",
) -> Path:
    """Write `count` numbered frames at `ticks` (default 0, 1, ...) of `base` (default 1/rate) seconds."""
    rate = Fraction(rate)
    base = base or 1 / rate
    ticks = ticks or range(count)
    with av.open(str(path), "w", options=container or {}) as out:
        stream: Any = out.add_stream(codec, rate=rate)
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        stream.codec_context.time_base = base
        stream.options = {"g": "4"} if options is None else options
        voices: list[Any] = [out.add_stream(name, rate=48000, bit_rate=96_000) for name in sound]
        for number, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(numbered(number, *size).permute(1, 2, 0).numpy().copy(), format="rgb24")
            frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base = tick, base
            out.mux(stream.encode(frame))
        for place, voice in enumerate(voices):
            _speak(out, voice, seconds=(ticks[-1] + 1) * base - ticks[0] * base, begin=ticks[0] * base, seed=place)
        out.mux(stream.encode(None))
    return path


def _speak(out: Any, voice: Any, seconds: Fraction, begin: Fraction, seed: int) -> None:
    generator = np.random.default_rng(seed)
    samples = 1024
    for block in range(int(seconds * 48000 / samples)):
        noise = (generator.standard_normal((2, samples)) * 0.1).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="stereo")
        frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
        frame.pts = int(begin * 48000) + block * samples
        for converted in av.AudioResampler(format=voice.format, layout="stereo", rate=48000).resample(frame):
            converted.pts = frame.pts
            out.mux(voice.encode(converted))
    out.mux(voice.encode(None))


def packets(path: Path, kind: str = "audio") -> list[list[tuple[Fraction, bytes]]]:
    """Per stream of that kind: (time in seconds, content) of every packet."""
    with av.open(str(path)) as file:
        streams = [s for s in file.streams if s.type == kind]
        found: dict[int, list[tuple[Fraction, bytes]]] = {s.index: [] for s in streams}
        for packet in file.demux(*streams) if streams else ():
            if packet.size and packet.pts is not None:
                found[packet.stream_index].append((packet.pts * packet.time_base, bytes(packet)))
    return list(found.values())


def times(path: Path) -> list[Fraction]:
    """The time of every frame, as PyAV alone decodes the file."""
    with av.open(str(path)) as file:
        return [frame.pts * frame.time_base for frame in file.decode(video=0)]


def folder(path: Path, count: int = 5, size: tuple[int, int] = (32, 64), suffix: str = ".png") -> Path:
    """A folder of numbered images named frame0.png, frame1.png, ... frame10.png, without leading zeros."""
    from shortcutv2v.video.picture import ImageEncoder

    path.mkdir()
    encoder = ImageEncoder(suffix, size)
    for number in range(count):
        (path / f"frame{number}{suffix}").write_bytes(encoder(numbered(number, *size)))
    return path
