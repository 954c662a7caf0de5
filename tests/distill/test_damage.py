"""Frames that cannot be read are passed over and counted, and the run goes on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v import video
from shortcutv2v.distill import FeatureCache, Pairs, Sequences, Windows, fit
from shortcutv2v.distill.damage import Reader, whole_parts
from shortcutv2v.errors import InputError, VideoError
from shortcutv2v.video.picture import ImageEncoder


class Damaged:
    """Frame t is grey t; some frames cannot be read."""

    def __init__(self, frames: int, bad: set[int]) -> None:
        self.frames, self.bad, self.reads = frames, bad, 0

    def __len__(self) -> int:
        return self.frames

    def __getitem__(self, number: int) -> Tensor:
        self.reads += 1
        if number in self.bad:
            raise VideoError(f"x.mp4: frame {number} is damaged")
        return torch.full((3, 12, 16), number, dtype=torch.uint8)


def numbers(sample: Tensor) -> list[int]:
    return [int(value) for value in (sample[:, 0, 0, 0] * 255).round()]


def picture(number: int) -> Tensor:
    coarse = torch.rand(1, 3, 3, 4, generator=torch.Generator().manual_seed(number))
    return (nn.functional.interpolate(coarse, (48, 64), mode="bilinear")[0] * 255).byte()


def damaged_clip(folder: Path, kind: str) -> tuple[Path, str]:
    """A clip of twelve frames, one of which (the last ones of a video) cannot be read, and what a warning names."""
    if kind == ".mp4":
        with video.create(folder / "clip.mp4", rate=25) as writer:
            for number in range(12):
                writer.write(picture(number))
        path = folder / "clip.mp4"
        content = bytearray(path.read_bytes())
        content[-200:] = bytes(200)  # the index stands in front
        path.write_bytes(content)
        return path, "clip.mp4: damaged or truncated near frame"
    frames = folder / "frames"
    frames.mkdir()
    for number in range(12):
        content = ImageEncoder(kind, (48, 64))(picture(number))
        (frames / f"{number}{kind}").write_bytes(content[: len(content) // 2 if number == 5 else None])
    return frames, f"5{kind}: damaged image"


@pytest.mark.filterwarnings("ignore:.*cannot be read:UserWarning")
def test_samples_with_bad_frames_are_drawn_anew() -> None:
    pairs, again = (Pairs([Damaged(9, {3, 4})], 3, crop=(8, 8)) for _ in range(2))
    found = [numbers(pairs[i]) for i in range(80)]
    assert {n for pair in found for n in pair} == set(range(9)) - {3, 4}
    assert [numbers(again[i]) for i in reversed(range(80))][::-1] == found  # whatever was met before
    whole = [numbers(Pairs([Damaged(9, set())], 3, crop=(8, 8))[i]) for i in range(80)]
    assert all(a == b for a, b in zip(found, whole, strict=True) if not {3, 4} & set(b))


def test_bad_frames_are_counted_and_read_once() -> None:
    clip = Damaged(20, set(range(10, 20)))
    reader = Reader([clip])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [reader.read(0, n) is None for n in range(20)] == [False] * 10 + [True] * 10
        reads = clip.reads
        assert reader.read(0, 15) is None
    assert clip.reads == reads
    said = [str(each.message) for each in caught]
    assert said[0] == "1 frame that cannot be read is left out so far, the last: frame 10, x.mp4: frame 10 is damaged"
    assert [text.split()[0] for text in said] == ["1", "2", "4", "8"]


@pytest.mark.filterwarnings("ignore:.*cannot be read:UserWarning")
def test_nothing_but_bad_frames_ends_the_run() -> None:
    with pytest.raises(VideoError, match=r"100 samples in a row cannot be read: x.mp4"):
        Pairs([Damaged(9, set(range(1, 9)))])[0]


@pytest.mark.filterwarnings("ignore:.*cannot be read:UserWarning")
def test_the_next_window_stands_for_a_bad_one() -> None:
    windows = Windows([Damaged(9, {7})], 3)
    assert [numbers(windows[i]) for i in range(3)] == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]


@pytest.mark.filterwarnings("ignore:.*cannot be read:UserWarning")
def test_parts_between_bad_frames() -> None:
    def ends(frames: int, bad: set[int]) -> list[tuple[int, int]]:
        parts: list[Any] = whole_parts(Damaged(frames, bad))
        return [(part.start, part.stop) for part in parts]

    assert ends(9, {0, 4, 8}) == [(1, 4), (5, 8)]
    assert ends(40, set(range(20, 30))) == [(0, 20), (35, 40)]  # tried at 20, 21, 23, 27, 35
    assert ends(9, set(range(9))) == []
    whole = Damaged(5, set())
    assert whole_parts(whole) == [whole]


@pytest.mark.filterwarnings("ignore:.*cannot be read:UserWarning")
def test_features_are_cached_around_bad_frames(chain: nn.Module, tmp_path: Path) -> None:
    model = shortcutv2v.wrap(chain, "1", "4", example_inputs=(torch.rand(1, 3, 12, 16),), channels=4)
    cached = Pairs([Damaged(9, {4})], 3, cache=FeatureCache(tmp_path, model))
    assert [len(stored) for stored in cached.source.clips] == [4, 4]
    with pytest.raises(InputError, match="needs 5 consecutive frames: the longest clip has 4"):
        Sequences([Damaged(9, {4})], 5, cache=FeatureCache(tmp_path, model))


@pytest.mark.parametrize("kind", [".png", ".jpg", ".mp4"])
@pytest.mark.parametrize("cached", [False, True])
def test_damage_behind_the_beginning_does_not_end_a_run(
    kind: str, cached: bool, chain: nn.Module, tmp_path: Path
) -> None:
    source, why = damaged_clip(tmp_path, kind)
    model = shortcutv2v.wrap(chain, "1", "4", example_inputs=(torch.rand(1, 3, 12, 16),), channels=4)
    settings: dict[str, Any] = {"minutes": None, "max_steps": 8, "crop": 8, "batch_size": 4, "progress": False}
    with pytest.warns(UserWarning, match=rf"cannot be read .*left out so far, .*{why}"):
        distiller = fit(model, source, validation=source, cache=tmp_path / "kept" if cached else None, **settings)
    assert distiller.trainer.global_step == 8
    assert distiller.trainer.callback_metrics["val/psnr"] > 0
