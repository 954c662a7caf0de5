"""Files that break off or are damaged, whole files that look short, and the line that lists what was not kept."""

from __future__ import annotations

import struct
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from synthetic import encode, folder, numbered, numbers, times
from torch import Tensor

from shortcutv2v import video
from shortcutv2v.errors import VideoError


def same(frame: Tensor) -> Tensor:
    return frame


def noise(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, 32, 64), dtype=torch.uint8, generator=generator) for _ in range(count)]


def mux(path: Path, codec: str, pixels: str, kind: str | None = None, options: dict[str, str] | None = None) -> Path:
    """Write 30 frames of noise, so that damage anywhere hits a picture."""
    with av.open(str(path), "w", format=kind, options=options or {}) as out:
        stream: Any = out.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 64, pixels
        for tick, picture in enumerate(noise(30)):
            frame = av.VideoFrame.from_ndarray(picture.permute(1, 2, 0).numpy().copy(), format="rgb24")
            frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base = tick, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


class _Live:
    """A pipe to write into: it cannot seek, so no duration and no sizes are filled in afterwards."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")

    def write(self, data: bytes) -> int:
        return self.file.write(data)


def live(path: Path, kind: str) -> Path:
    pipe = _Live(path)
    out = av.open(pipe, "w", format=kind)
    stream: Any = out.add_stream("libx264", rate=25)
    stream.height, stream.width, stream.pix_fmt, stream.options = 32, 64, "yuv420p", {"g": "4"}
    for tick, picture in enumerate(noise(30)):
        frame = av.VideoFrame.from_ndarray(picture.permute(1, 2, 0).numpy().copy(), format="rgb24")
        frame.pts, frame.time_base = tick, Fraction(1, 25)
        out.mux(stream.encode(frame.reformat(format="yuv420p")))
    out.mux(stream.encode(None))
    out.close()
    pipe.file.close()
    return path


KINDS = {
    "a.gif": lambda p: mux(p, "gif", "rgb8"),
    "a.y4m": lambda p: mux(p, "wrapped_avframe", "yuv420p", "yuv4mpegpipe"),
    "live.mkv": lambda p: live(p, "matroska"),
    "a.mkv": lambda p: mux(p, "libx264", "yuv420p"),
    "a.avi": lambda p: mux(p, "mpeg4", "yuv420p"),
    "a.wmv": lambda p: mux(p, "wmv2", "yuv420p", "asf"),
    "a.flv": lambda p: mux(p, "flv1", "yuv420p"),
    "pieces.mp4": lambda p: mux(p, "libx264", "yuv420p", options={"movflags": "frag_keyframe+empty_moov"}),
}


@pytest.mark.parametrize("share", [0.3, 0.55, 0.8])
@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_breaks_off_is_refused_or_warned_of(tmp_path: Path, name: str, share: float) -> None:
    path = KINDS[name](tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert video.convert(path, tmp_path / "whole.mp4", same, progress=False) == 30
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(VideoError, match="damaged or truncated"):
        video.convert(path, tmp_path / "out.mp4", same, progress=False)
    assert not (tmp_path / "out.mp4").exists()
    with pytest.raises(VideoError, match="damaged or truncated"):
        video.Frames(path)


@pytest.mark.parametrize("name", ["a.y4m", "live.mkv", "raw.h264", "plain.ts", "live.mjpeg"])
def test_where_no_length_is_promised_it_is_said(tmp_path: Path, name: str) -> None:
    make = {
        "raw.h264": lambda p: mux(p, "libx264", "yuv420p"),
        "plain.ts": lambda p: mux(p, "libx264", "yuv420p"),
        "live.mjpeg": lambda p: mux(p, "mjpeg", "yuvj420p"),
        **KINDS,
    }[name]
    path = make(tmp_path / name)
    with pytest.warns(UserWarning, match="does not say how long it is, so a missing end would not be noticed"):
        assert video.convert(path, tmp_path / "out.mp4", same, progress=False) == 30


def test_a_picture_file_cut_between_two_frames_is_warned_of(tmp_path: Path) -> None:
    path = KINDS["a.gif"](tmp_path / "a.gif")
    path.write_bytes(path.read_bytes()[:-1])  # the trailer
    with pytest.warns(UserWarning, match="does not say how long it is"):
        video.convert(path, tmp_path / "out.mp4", same, progress=False)


@pytest.mark.parametrize(("name", "codec", "pixels"), [
    ("a.avi", "mjpeg", "yuvj420p"), ("a.gif", "gif", "rgb8"), ("a.mov", "png", "rgb24"), ("a.mkv", "ffv1", "yuv420p"),
])  # fmt: skip
def test_damage_that_the_decoder_paints_over(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    """FFmpeg only logs it."""
    if codec == "ffv1" and int(av.__version__.split(".")[0]) < 16:
        pytest.skip("its FFmpeg does not log this")
    path = mux(tmp_path / name, codec, pixels)
    whole = path.read_bytes()
    refused = 0
    for place in range(6):
        data = bytearray(whole)
        at = int(len(data) * (0.3 + 0.1 * place))
        data[at : at + 40] = bytes(byte ^ 0x5A for byte in data[at : at + 40])
        path.write_bytes(data)
        try:
            list(video.open(path))
        except VideoError:
            refused += 1
    assert refused >= 3  # some damage makes another valid picture
    path.write_bytes(whole)
    assert len(list(video.open(path))) == 30


def stretch_last(path: Path, hundredths: int) -> Path:
    """Let the last picture of a GIF stand for longer."""
    data = bytearray(path.read_bytes())
    at = data.rfind(b"\x21\xf9\x04")
    data[at + 4 : at + 6] = struct.pack("<H", hundredths)
    path.write_bytes(data)
    return path


def test_a_last_picture_that_stands_for_seconds(tmp_path: Path) -> None:
    path = stretch_last(KINDS["a.gif"](tmp_path / "a.gif"), 300)
    assert video.convert(path, tmp_path / "out.mp4", same, progress=False) == 30
    with av.open(str(tmp_path / "out.mp4")) as file:
        stream = file.streams.video[0]
        assert 4 < float(stream.duration * stream.time_base) < 4.5  # 29 frames of 0.04 s, and 3 s
    assert len(video.Frames(path)) == 30


@pytest.mark.parametrize("gap", [1, 30, 200])
@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_an_avi_with_many_dropped_frames_is_whole(tmp_path: Path, codec: str, gap: int) -> None:
    ticks = [0, 1, 2, 2 + gap, 3 + gap]
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = encode(tmp_path / "a.avi", ticks=ticks, codec=codec, options={}, pixels=pixels, sound=["mp2"])
    assert video.convert(path, tmp_path / "out.mkv", same, progress=False) == 5
    assert [round(at * 25) for at in times(tmp_path / "out.mkv")] == ticks
    assert len(video.Frames(path)) == 5


@pytest.mark.parametrize("name", ["a.wmv", "a.mkv", "a.avi", "a.flv"])
def test_sound_longer_than_the_pictures_is_no_damage(tmp_path: Path, name: str) -> None:
    codec = {"a.wmv": ("wmv2", "wmav2"), "a.flv": ("flv1", "aac")}.get(name, ("mpeg4", "mp2"))
    path = tmp_path / name
    with av.open(str(path), "w", format="asf" if name.endswith("wmv") else None) as out:
        picture: Any = out.add_stream(codec[0], rate=25)
        picture.height, picture.width, picture.pix_fmt = 32, 64, "yuv420p"
        voice: Any = out.add_stream(codec[1], rate=44100, layout="stereo", bit_rate=128_000)
        for tick in range(12):
            frame = av.VideoFrame.from_ndarray(numbered(tick).permute(1, 2, 0).numpy().copy(), format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 25)
            out.mux(picture.encode(frame.reformat(format="yuv420p")))
        out.mux(picture.encode(None))
        for block in range(200):
            silence = av.AudioFrame(format=voice.format.name, layout="stereo", samples=1024)
            for plane in silence.planes:
                plane.update(bytes(plane.buffer_size))
            silence.sample_rate, silence.time_base, silence.pts = 44100, Fraction(1, 44100), block * 1024
            out.mux(voice.encode(silence))
        out.mux(voice.encode(None))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*(AAC|does not say|states)")
        assert video.convert(path, tmp_path / "out.mp4", same, progress=False) == 12
        assert len(video.Frames(path)) == 12


def test_a_mere_duration_warns_and_keeps(tmp_path: Path) -> None:
    """An flv whose header states ten seconds, of which half a second is there."""
    path = encode(tmp_path / "a.flv", 12, codec="flv1", options={})
    data = bytearray(path.read_bytes())
    at = data.index(b"duration") + 9
    data[at : at + 8] = struct.pack(">d", 10.0)
    path.write_bytes(data)
    with pytest.warns(UserWarning, match=r"its header states 9\.\d\d s more than came"):
        assert video.convert(path, tmp_path / "out.mp4", same, progress=False) == 12


class TestNotKept:
    def line(self, path: Path, target: Path, **options: Any) -> str:
        with pytest.warns(UserWarning, match="not kept: ") as caught:
            video.convert(path, target, same, progress=False, **options)
        assert len(caught) == 1
        return str(caught[0].message)

    @pytest.mark.parametrize("name", ["a.mov", "a.webm"])
    def test_transparency(self, tmp_path: Path, name: str) -> None:
        codec, pixels = ("png", "rgba") if name.endswith("mov") else ("libvpx-vp9", "yuva420p")
        for alpha in (255, 100):
            with av.open(str(tmp_path / name), "w") as out:
                stream: Any = out.add_stream(codec, rate=25)
                stream.height, stream.width, stream.pix_fmt = 32, 64, pixels
                for tick in range(3):
                    picture = torch.cat([numbered(tick), torch.full((1, 32, 64), alpha, dtype=torch.uint8)])
                    frame = av.VideoFrame.from_ndarray(picture.permute(1, 2, 0).numpy().copy(), format="rgba")
                    frame.pts, frame.time_base = tick, Fraction(1, 25)
                    out.mux(stream.encode(frame.reformat(format=pixels)))
                out.mux(stream.encode(None))
            if alpha == 255:
                video.convert(tmp_path / name, tmp_path / "out.mp4", same, progress=False)  # nothing is lost
        if name.endswith("webm"):
            pytest.skip("FFmpeg's own VP9 decoder reads no alpha")
        assert "transparency" in self.line(tmp_path / name, tmp_path / "out.mp4")
        assert "transparency" in self.line(tmp_path / name, tmp_path / "out")

    def test_transparency_of_images(self, tmp_path: Path) -> None:
        path = folder(tmp_path / "frames", 3)
        with av.open(str(path / "frame1.png"), "w", format="image2") as out:
            stream: Any = out.add_stream("png", rate=25)
            stream.height, stream.width, stream.pix_fmt = 32, 64, "rgba"
            frame = av.VideoFrame(64, 32, "rgba")
            frame.planes[0].update(bytes(frame.planes[0].buffer_size))
            frame.pts = 0
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        assert "transparency" in self.line(path, tmp_path / "out.mp4")

    def test_subtitles_and_chapters(self, tmp_path: Path) -> None:
        path = encode(tmp_path / "a.mkv")
        target = tmp_path / "b.mkv"
        with av.open(str(path)) as source, av.open(str(target), "w") as out:
            picture = source.streams.video[0]
            copy = out.add_stream_from_template(picture)
            if not hasattr(out, "set_chapters"):
                pytest.skip("this PyAV writes no chapters")
            out.set_chapters([{"id": 1, "start": 0, "end": 200, "time_base": Fraction(1, 1000), "metadata": {}}])
            for packet in source.demux(picture):
                if packet.dts is not None:
                    packet.stream = copy
                    out.mux(packet)
        assert "chapters (1)" in self.line(target, tmp_path / "out.mp4")

    @pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
    def test_hdr_keeps_its_tags(self, tmp_path: Path, transfer: int, name: str) -> None:
        path = tmp_path / "hdr.mp4"
        with av.open(str(path), "w") as out:
            stream: Any = out.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = 32, 64, "yuv420p"
            context = stream.codec_context
            context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, transfer, 9, 1
            for tick in range(3):
                frame = av.VideoFrame.from_ndarray(numbered(tick).permute(1, 2, 0).numpy().copy(), format="rgb24")
                frame = frame.reformat(format="yuv420p", dst_colorspace=9)
                frame.pts, frame.time_base = tick, Fraction(1, 25)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        assert f"its {name} (HDR) values, which are not tone-mapped (tone_map=True does so)" in self.line(
            path, tmp_path / "out.mp4"
        )
        with av.open(str(tmp_path / "out.mp4")) as file:
            codec = file.streams.video[0].codec_context
            assert (int(codec.color_trc), int(codec.color_primaries), int(codec.colorspace)) == (transfer, 9, 9)
        for old, new in zip(video.open(path), video.open(tmp_path / "out.mp4"), strict=True):
            assert (old.float() - new.float()).abs().mean() < 3
        try:
            video.convert(path, tmp_path / "mapped.mp4", same, progress=False, tone_map=True)
        except VideoError as error:
            pytest.skip(str(error))
        with av.open(str(tmp_path / "mapped.mp4")) as file:
            codec = file.streams.video[0].codec_context
            assert (int(codec.color_trc), int(codec.color_primaries), int(codec.colorspace)) == (1, 1, 1)
        before, after = (next(iter(video.open(tmp_path / name))).float() for name in ("out.mp4", "mapped.mp4"))
        assert (before - after).abs().mean() > 3

    def test_nothing_lost_nothing_said(self, tmp_path: Path) -> None:
        path = encode(tmp_path / "a.mp4", 25, sound=["aac"])
        video.convert(path, tmp_path / "out.mp4", same, progress=False)
        assert numbers(video.open(tmp_path / "out.mp4")) == list(range(25))
