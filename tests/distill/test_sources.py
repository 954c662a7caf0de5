"""What may be named as training material, and what is said about the rest."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shortcutv2v import video
from shortcutv2v.distill.clips import open_clips
from shortcutv2v.distill.data import Pairs
from shortcutv2v.errors import InputError, VideoError


def clip_of(frames: int = 4, size: tuple[int, int] = (16, 24)) -> Tensor:
    return torch.randint(0, 256, (frames, 3, *size), dtype=torch.uint8)


def record(path: Path, frames: Tensor) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with video.create(path, rate=25) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def test_any_mixture_of_any_sizes(tmp_path: Path) -> None:
    record(tmp_path / "videos" / "one.mp4", clip_of(5))
    record(tmp_path / "videos" / "deep" / "two.mkv", clip_of(6, (32, 48)))
    record(tmp_path / "frames", clip_of(3, (20, 20)))
    labels = clip_of(7)[:, :1]
    found = open_clips([labels, str(tmp_path / "videos"), tmp_path / "frames", clip_of(9)])
    assert sorted(len(clip) for clip in found) == [3, 5, 6, 7, 9]
    pictures = [clip for clip in found if clip[0].shape[0] == 3]
    assert Pairs(pictures, crop=(16, 16))[3].shape == (2, 3, 16, 16)


def test_one_source_needs_no_list_and_files_are_read_at_a_size(tmp_path: Path) -> None:
    (clip,) = open_clips(record(tmp_path / "x.mp4", clip_of(3, (32, 48))), size=16)
    assert clip[2].shape == (3, 16, 24)
    (same,) = open_clips(clip)
    assert same is clip


def test_bad_files_are_counted_and_named_once(tmp_path: Path) -> None:
    good = record(tmp_path / "good.mp4", clip_of(5))
    (tmp_path / "noise.mp4").write_bytes(b"no video at all")
    (tmp_path / "half.mp4").write_bytes(good.read_bytes()[:300])
    record(tmp_path / "short.mp4", clip_of(1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = open_clips([tmp_path, clip_of(4)])
    assert sorted(len(clip) for clip in found) == [4, 5]
    (warning,) = [str(w.message) for w in caught]
    assert warning.startswith("3 of 4 clips left out")
    assert all(name in warning for name in ("noise.mp4", "half.mp4", "short.mp4: 1 frames"))


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(b"no video at all")
    with pytest.raises(VideoError, match=r"no usable clip among 1 found.*noise.mp4"):
        open_clips([tmp_path, clip_of()])
    with pytest.raises(VideoError, match="no such file or folder"):
        open_clips(tmp_path / "gone")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (torch.rand(4, 3, 8, 8), r"frame 0 of source 1 is torch.float32 \(3, 8, 8\): expected a path, a uint8 tensor"),
        (torch.zeros(4, 8, 8, dtype=torch.uint8), r"frame 0 of source 1 is torch.uint8 \(8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "source 1 has 1 frames: training needs two"),
        (7, "source 1 is a int: expected"),
        ({0: 1, 1: 2}, "frame 0 of source 1 is int"),
        (torch.rand(4, 3, 8, 8), r"of a float tensor .*: clip.mul\(255\).round"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8).numpy(), "torch.from_numpy"),
        (torch.zeros(4, 8, 9, 3, dtype=torch.uint8), r"channels last: give clip.permute\(0, 3, 1, 2\)"),
    ],
)
def test_what_is_no_clip_is_named(source: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_clips([clip_of(), source])


def test_no_clips_at_all() -> None:
    with pytest.raises(InputError, match="there are no clips"):
        open_clips([])


def test_files_share_one_bounded_cache(tmp_path: Path) -> None:
    for name in "abc":
        record(tmp_path / f"{name}.mp4", clip_of(20, (32, 48)))
    clips = open_clips(tmp_path)
    (cache,) = {clip.cache for clip in clips}
    cache.max_bytes = 4 * clips[0][0].nbytes
    for number in range(20):
        for clip in clips:
            clip[number]
            assert cache.bytes <= cache.max_bytes
