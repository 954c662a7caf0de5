from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import encode, folder

from shortcutv2v import video
from shortcutv2v.errors import VideoError


def test_any_mixture(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    single = encode(tmp_path / "single.mkv")
    first, second = encode(tmp_path / "deep" / "a.mp4"), encode(tmp_path / "deep" / "er" / "b.mp4")
    (tmp_path / "deep" / "thumbnail.png").write_bytes(b"beside videos, not a frame")
    (tmp_path / "deep" / "notes.txt").write_text("no clip")
    frames = folder(tmp_path / "deep" / "frames")
    assert video.find_clips([single, tmp_path / "deep", first]) == [single, first, second, frames]
    assert video.find_clips(str(frames)) == [frames]
    assert video.find_clips(tmp_path / "deep") == [first, second, frames]


def test_bad_ones_are_left_out_named_and_counted(tmp_path: Path) -> None:
    good = encode(tmp_path / "a.mp4")
    short = encode(tmp_path / "b.mp4", 1)
    (tmp_path / "c.mp4").write_bytes(b"not a video")
    cut = encode(tmp_path / "d.mp4", 60, container={"movflags": "faststart"})
    cut.write_bytes(cut.read_bytes()[: int(cut.stat().st_size * 0.7)])
    with pytest.warns(UserWarning, match="3 of 4 clips left out") as caught:
        assert video.find_clips(tmp_path, min_frames=2) == [good]
    message = str(caught[0].message)
    assert all(str(path) in message for path in (short, tmp_path / "c.mp4", cut))
    assert "1 frames, fewer than 2" in message


def test_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "c.mp4").write_bytes(b"not a video")
    with pytest.raises(VideoError, match=r"no usable clip among 1 found.*not a readable video"):
        video.find_clips(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match="no usable clip among 0 found in .*empty"):
        video.find_clips(tmp_path / "empty")
    with pytest.raises(VideoError, match="found in an empty list; expected videos or folders of frames$"):
        video.find_clips([])


def test_a_folder_with_a_file_that_is_no_picture_is_found_out_before_training(tmp_path: Path) -> None:
    good, bad = folder(tmp_path / "good"), folder(tmp_path / "bad")
    (last := sorted(bad.iterdir())[-1]).write_bytes(b"not a picture")
    with pytest.warns(UserWarning, match=f"1 of 2 clips left out: {last}: not an image"):
        assert video.find_clips(tmp_path) == [good]


def test_misspelt(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such file or folder"):
        video.find_clips([tmp_path / "nothing"])
