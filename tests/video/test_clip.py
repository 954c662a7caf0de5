from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from synthetic import encode, folder, number_of, numbered, numbers, times

from shortcutv2v import video
from shortcutv2v.errors import VideoError
from shortcutv2v.video import picture

FILES = {
    "plain.mp4": {},
    "b_frames.mp4": {"options": {"g": "6", "bf": "3", "x264-params": "open-gop=1:b-adapt=0"}},
    "late.mp4": {"ticks": range(100, 112)},
    "late.ts": {"ticks": range(100, 112)},
    "plain.mkv": {},
    "reordered.avi": {"options": {"bf": "2", "g": "6"}},
    "hidden_packets.webm": {"codec": "libvpx-vp9", "options": {"auto-alt-ref": "1", "lag-in-frames": "8", "g": "6"}},
    "uneven.mp4": {"base": Fraction(1, 1000), "ticks": [0, 40, 100, 101, 300, 301, 900, 950, 990, 1000, 1100, 1101]},
    "pieces.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}},
    "odd.mkv": {"size": (31, 63), "pixels": "yuv444p"},
}


@pytest.mark.parametrize("name", FILES)
def test_every_frame_comes_once_in_order(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, **FILES[name])
    with video.open(path) as clip:
        assert numbers(clip) == list(range(12))
        assert clip.size == FILES[name].get("size", (32, 64))
        assert clip.frames in {12, None}


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith("avi")])
def test_time_stamps_are_the_files_own(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, **FILES[name])
    clip = video.open(path)
    assert [time for time, _ in clip.timed()] == times(path)
    assert all((time / clip.time_base).denominator == 1 for time, _ in clip.timed())


def test_avi_keeps_no_stamps_so_frames_are_even(tmp_path: Path) -> None:
    clip = video.open(encode(tmp_path / "reordered.avi", options={"bf": "2", "g": "6"}))
    assert [time for time, _ in clip.timed()] == [Fraction(i, 25) for i in range(12)]


def test_frames_are_uint8_rgb(tmp_path: Path) -> None:
    frame = next(iter(video.open(encode(tmp_path / "clip.mp4", options={"crf": "1"}))))
    assert frame.dtype == torch.uint8
    assert frame.shape == (3, 32, 64)
    assert frame.is_contiguous()
    assert (frame.float() - numbered(0).float()).abs().mean() < 4


def test_clip_can_be_read_again_and_abandoned(tmp_path: Path) -> None:
    with video.open(encode(tmp_path / "clip.mp4")) as clip:
        first = iter(clip)
        next(first)
        assert numbers(clip) == list(range(12))
        assert number_of(next(first)) == 1
    with pytest.raises(StopIteration):
        next(first)


@pytest.mark.parametrize(("start", "stop"), [(0, None), (3, None), (0, 5), (4, 9), (11, 12), (10, 99)])
def test_range(tmp_path: Path, start: int, stop: int | None) -> None:
    expected = list(range(12))[start:stop]
    for path in (encode(tmp_path / "clip.mp4"), folder(tmp_path / "frames", 12)):
        clip = video.open(path, start=start, stop=stop)
        assert numbers(clip) == expected
        assert clip.frames == len(expected)


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (3, 3), (5, 2)])
def test_no_such_range(tmp_path: Path, start: int, stop: int | None) -> None:
    with pytest.raises(VideoError, match="no frame range"):
        video.open(encode(tmp_path / "clip.mp4"), start=start, stop=stop)


def test_range_behind_the_end(tmp_path: Path) -> None:
    clip = video.open(encode(tmp_path / "clip.mp4"), start=12)
    with pytest.raises(VideoError, match="has only 12 frames; start=12"):
        list(clip)


@pytest.mark.parametrize(("size", "expected"), [(16, (16, 32)), (48, (48, 96)), ((20, 40), (20, 40)), (None, (32, 64))])
def test_resize(tmp_path: Path, size: picture.Size, expected: tuple[int, int]) -> None:
    for path in (encode(tmp_path / "clip.mp4"), folder(tmp_path / "frames")):
        clip = video.open(path, size=size)
        frames = list(clip)
        assert clip.size == expected
        assert all(frame.shape == (3, *expected) for frame in frames)
        assert numbers(frames) == list(range(len(frames)))


@pytest.mark.parametrize("size", [0, (10,), (10, 0), 18.5, (16.5, 20)])
def test_no_such_size(tmp_path: Path, size: picture.Size) -> None:
    with pytest.raises(VideoError, match="is no size"):
        video.open(folder(tmp_path / "frames"), size=size)


def test_shrinking_does_not_alias(tmp_path: Path) -> None:
    """Stripes of one pixel must turn grey; sampling every 4th pixel would leave them black or white."""
    stripes = torch.zeros(3, 64, 64, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    with video.create(tmp_path / "stripes") as out:
        out.write(stripes)
    small = next(iter(video.open(tmp_path / "stripes", size=16))).float()
    assert (small[:, 2:-2, 2:-2] - 127.5).abs().max() < 12


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1), ((1, 0, 0, 1), 0)],
)
def test_display_rotation(tmp_path: Path, matrix: tuple[int, ...], turns: int) -> None:
    path = encode(tmp_path / "clip.mp4", 3, options={"crf": "1"})
    upright = list(video.open(path))
    _set_rotation(path, matrix)
    clip = video.open(path)
    for turned, frame in zip(clip, upright, strict=True):
        assert torch.equal(turned, torch.rot90(frame, turns, (1, 2)))
    assert clip.size == ((64, 32) if turns % 2 else (32, 64))


def _set_rotation(path: Path, matrix: tuple[int, ...]) -> None:
    """Write a rotation into the track header of an mp4, as phones do: nine 32-bit numbers, 40 bytes behind its name."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    for i, value in enumerate((a, b, 0, c, d, 0, 0, 0, 1 << 30)):
        data[place + 4 * i : place + 4 * i + 4] = (value & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_folder_in_natural_order(tmp_path: Path, suffix: str) -> None:
    path = folder(tmp_path / "frames", 12, suffix=suffix)
    (path / "notes.txt").write_text("not a frame")
    (path / ".hidden.png").write_bytes(b"not a frame either")
    with video.open(path, rate=10) as clip:
        assert numbers(clip) == list(range(12))
        assert (clip.rate, clip.frames, clip.size) == (10, 12, (32, 64))
        assert [time for time, _ in clip.timed()] == [Fraction(i, 10) for i in range(12)]


def test_png_is_exact_and_jpg_close(tmp_path: Path) -> None:
    assert torch.equal(next(iter(video.open(folder(tmp_path / "a")))), numbered(0))
    jpg = next(iter(video.open(folder(tmp_path / "b", suffix=".jpg"))))
    assert (jpg.float() - numbered(0).float()).abs().mean() < 3


@pytest.mark.parametrize("kind", ["webp", "bmp", "tiff", "ppm"])
def test_other_image_kinds(tmp_path: Path, kind: str) -> None:
    pixels = "bgr24" if kind == "bmp" else "rgb24"
    encoder = av.CodecContext.create({"webp": "libwebp"}.get(kind, kind), "w")
    encoder.width, encoder.height, encoder.time_base = 64, 32, Fraction(1, 25)
    encoder.pix_fmt = "bgra" if kind == "webp" else pixels
    frame = picture.to_frame(numbered(5)).reformat(format=encoder.pix_fmt)
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / f"0.{kind}").write_bytes(b"".join(map(bytes, encoder.encode(frame) + encoder.encode(None))))
    assert numbers(video.open(tmp_path / "frames")) == [5]


def test_image_with_a_wrong_suffix_is_known_by_its_content(tmp_path: Path) -> None:
    path = folder(tmp_path / "frames", 2)
    for file in path.iterdir():
        file.rename(file.with_suffix(".jpg"))
    assert numbers(video.open(path)) == [0, 1]


def test_awkward_file_name(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4").rename(tmp_path / "5:1 %03d *.mp4")
    assert numbers(video.open(path)) == list(range(12))


def _trouble(path: Path) -> str:
    with pytest.raises(VideoError) as info:
        list(video.open(path))
    message = str(info.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_missing(tmp_path: Path) -> None:
    assert "no such file" in _trouble(tmp_path / "nothing.mp4")


@pytest.mark.parametrize("content", [b"", b"hello world" * 100])
def test_not_a_video(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    assert "not a readable video" in _trouble(tmp_path / "clip.mp4")


def test_only_sound(tmp_path: Path) -> None:
    source = encode(tmp_path / "clip.mkv", 25, sound=["flac"])
    with av.open(str(source)) as file, av.open(str(tmp_path / "sound.mkv"), "w") as out:
        voice = out.add_stream_from_template(file.streams.audio[0])
        for packet in file.demux(file.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = voice
                out.mux(packet)
    assert "no video stream" in _trouble(tmp_path / "sound.mkv")


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.webm", "clip.mov"])
@pytest.mark.parametrize("share", [0.45, 0.75])
def test_truncated(tmp_path: Path, name: str, share: float) -> None:
    options = {"codec": "libvpx-vp9", "options": {}} if name.endswith("webm") else {}
    front = {"movflags": "faststart"} if name[-3:] in {"mp4", "mov"} else {}
    path = encode(tmp_path / name, 60, container=front, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "damaged or truncated" in _trouble(path)


def test_truncated_before_the_table_of_contents(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", 60)
    path.write_bytes(path.read_bytes()[:-200])
    assert "expected" in _trouble(path)


def test_what_lies_before_the_damage_can_be_read(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", 60, container={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.85)])
    stop = int(_trouble(path).split("stop=")[1])
    assert numbers(video.open(path, stop=stop)) == list(range(stop))


def test_damage_in_the_middle(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", 60)
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + int(len(data) * 0.5)
    data[middle : middle + 200] = bytes(200)
    path.write_bytes(data)
    assert "damaged or truncated near frame" in _trouble(path)


def test_size_changes_midway(tmp_path: Path) -> None:
    for name, size in (("a.h264", (32, 64)), ("b.h264", (48, 64))):
        encode(tmp_path / name, 6, size=size)
    both = tmp_path / "both.h264"
    both.write_bytes((tmp_path / "a.h264").read_bytes() + (tmp_path / "b.h264").read_bytes())
    message = _trouble(both)
    assert "frame 6 is 48x64" in message
    assert "frame 0 is 32x64" in message


def test_size_changes_midway_in_a_folder(tmp_path: Path) -> None:
    path = folder(tmp_path / "frames", 3)
    (path / "frame1.png").write_bytes(picture.ImageEncoder(".png", (16, 64))(numbered(1, 16)))
    message = _trouble(path)
    assert "frame 1 is 16x64" in message
    assert "frame 0 is 32x64" in message


def test_pictures_lying_among_upright_ones(tmp_path: Path) -> None:
    path = folder(tmp_path / "frames", 3, suffix=".jpg")
    jpg = (path / "frame1.jpg").read_bytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # lying: orientation 6
    (path / "frame1.jpg").write_bytes(jpg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpg[2:])
    message = _trouble(path)
    assert "frame 1 is 64x32" in message
    assert "frame 0 is 32x64" in message


def test_folder_without_frames(tmp_path: Path) -> None:
    assert "no frames in this folder" in _trouble(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\nshort", b"hello"])
def test_damaged_image(tmp_path: Path, content: bytes) -> None:
    path = folder(tmp_path / "frames", 3)
    (path / "frame1.png").write_bytes(content)
    assert "frame1.png" in _trouble(path)


def test_rate_belongs_to_folders(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="for folders of frames"):
        video.open(encode(tmp_path / "clip.mp4"), rate=10)
    with pytest.raises(VideoError, match="rate=0 is no frame rate"):
        video.open(folder(tmp_path / "frames"), rate=0)


def test_package_does_not_import_av() -> None:
    code = (
        "import sys, torchvision\n"  # its older releases import PyAV where they find it
        "theirs = set(sys.modules)\n"
        "import shortcutv2v, shortcutv2v.video\n"
        "assert 'av' not in set(sys.modules) - theirs\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_av_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "clip.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoError, match=r'pip install "shortcutv2v\[video\]"'):
        video.open(path)
    with pytest.raises(VideoError, match=r'pip install "shortcutv2v\[video\]"'):
        video.create(tmp_path / "out.mp4")
