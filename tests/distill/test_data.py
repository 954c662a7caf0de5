"""Pairs and windows: right frames, same crop, repeatable."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from shortcutv2v.distill.clips import Mirrored, Part
from shortcutv2v.distill.data import Pairs, Sequences, Windows
from shortcutv2v.errors import InputError


def numbered(frames: int, size: tuple[int, int] = (20, 24), offset: int = 0) -> torch.Tensor:
    """Frame t: red is t, green the row, blue the column."""
    height, width = size
    clip = torch.zeros(frames, 3, height, width, dtype=torch.uint8)
    clip[:, 0] = torch.arange(offset, offset + frames).view(-1, 1, 1)
    clip[:, 1] = torch.arange(height).view(1, -1, 1)
    clip[:, 2] = torch.arange(width).view(1, 1, -1)
    return clip


def read(sample: torch.Tensor) -> torch.Tensor:
    return (sample * 255).round().long()


def test_distances_cover_one_to_the_interval() -> None:
    pairs = Pairs([numbered(12)], max_interval=3, reverse=False, flip=False)
    found = [read(pairs[i])[:, 0, 0, 0] for i in range(300)]
    assert {int(b - a) for a, b in found} == {1, 2, 3}
    assert {int(a) for a, _ in found} == set(range(11))
    reversed_too = [read(p)[:, 0, 0, 0] for p in map(Pairs([numbered(12)], 3).__getitem__, range(100))]
    assert {int(b - a) for a, b in reversed_too} == {-3, -2, -1, 1, 2, 3}


def test_both_frames_get_the_same_crop_and_flip() -> None:
    pairs = Pairs([numbered(6)], crop=(8, 10))
    corners, flips = set(), set()
    for i in range(60):
        first, second = read(pairs[i])
        assert first.shape == (3, 8, 10)
        assert torch.equal(first[1:], second[1:])
        rows, columns = first[1, :, 0], first[2, 0]
        assert torch.equal(rows.diff(), torch.ones(7, dtype=torch.long))
        assert abs(int(columns.diff()[0])) == 1
        corners.add((int(rows[0]), int(columns.min())))
        flips.add(int(columns.diff()[0]))
    assert len(corners) > 20
    assert flips == {-1, 1}


def test_a_sample_depends_on_seed_and_number_alone() -> None:
    one, two = Pairs([numbered(9)], crop=(8, 8), seed=1), Pairs([numbered(9)], crop=(8, 8), seed=1)
    torch.manual_seed(5)
    expected = [one[i] for i in range(10)]
    state = torch.get_rng_state()
    again = [two[i] for i in reversed(range(10))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(expected, again, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    other = Pairs([numbered(9)], crop=(8, 8), seed=2)
    assert not all(torch.equal(other[i], expected[i]) for i in range(10))


def test_drawing_leaves_the_generators_of_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("a GPU was seeded"))
    assert Pairs([numbered(4)])[0].shape == (2, 3, 20, 24)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_interval": 2.5}, "max_interval must be a whole number of at least 1, got 2.5"),
        ({"length": 0}, "length, the number of samples, must be"),
        ({"seed": "a"}, "seed must be a whole number"),
        ({"crop": (0, 8)}, "each side of crop must be a whole number of at least 1, got 0"),
        ({"crop": (8, 8, 8)}, r"crop must be \(height, width\) or None"),
    ],
)
def test_bad_numbers_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pairs([numbered(4)], **settings)


def test_clips_of_different_sizes_mix_under_a_crop() -> None:
    clips = [numbered(4, (16, 16)), numbered(8, (20, 30), offset=100)]
    drawn = [int(read(Pairs(clips, crop=(16, 16))[i])[0, 0, 0, 0]) >= 100 for i in range(200)]
    assert 0.5 < sum(drawn) / 200 < 0.9  # 7 of 10 pairs of neighbours lie in the longer clip
    with pytest.raises(InputError, match="need a crop"):
        Pairs(clips)
    with pytest.raises(InputError, match="16x16 is smaller than the crop 18x18"):
        Pairs(clips, crop=(18, 18))


def test_pairs_need_two_frames() -> None:
    with pytest.raises(InputError, match="needs 2 consecutive frames: the longest clip has 1"):
        Pairs([numbered(1)])
    assert read(Pairs([numbered(2)], max_interval=9)[0]).shape == (2, 3, 20, 24)


def test_part_is_a_clip() -> None:
    part = Part(numbered(10), 4, 7)
    assert [int(part[i][0, 0, 0]) for i in range(len(part))] == [4, 5, 6]
    with pytest.raises(IndexError):
        part[3]
    with pytest.raises(InputError, match="4:12 are not in a clip of 10 frames"):
        Part(numbered(10), 4, 12)


def test_windows_follow_each_other() -> None:
    with pytest.warns(UserWarning, match="1 of 3 clips left out: they have fewer than 3 frames"):
        windows = Windows([numbered(7), numbered(2), numbered(3, offset=50)], length=3)
    assert [read(windows[i])[:, 0, 0, 0].tolist() for i in range(len(windows))] == [[0, 1, 2], [3, 4, 5], [50, 51, 52]]
    with pytest.raises(InputError, match="3 consecutive frames"):
        Windows([numbered(2)], length=3)


def test_sequences_are_consecutive_windows_of_all_clips() -> None:
    clips = [
        numbered(6),
        numbered(2, (9, 9), offset=50),
        numbered(4, offset=100),
    ]  # what is left out may be of any size
    with pytest.warns(UserWarning, match="1 of 3 clips left out: they have fewer than 3 frames"):
        sequences = Sequences(clips, window=3, flip=False)
    found = [read(sequences[i])[:, 0, 0, 0].tolist() for i in range(300)]
    assert all(b - a == 1 for window in found for a, b in itertools.pairwise(window))
    starts = [window[0] for window in found]
    assert set(starts) == {0, 1, 2, 3, 100, 101}
    assert all(30 < starts.count(start) < 75 for start in set(starts))  # every window is as likely: 50 each


def test_sequences_run_backwards_if_asked() -> None:
    sequences = Sequences([numbered(6)], window=3, reverse=True)
    steps = {tuple(read(sequences[i])[:, 0, 0, 0].diff().tolist()) for i in range(40)}
    assert steps == {(1, 1), (-1, -1)}


def test_sequences_need_long_clips() -> None:
    with pytest.raises(InputError, match="needs 5 consecutive frames: the longest clip has 4"):
        Sequences([numbered(4), numbered(2)], window=5)
    with pytest.raises(
        InputError, match="a reference and the frames after it, must be a whole number of at least 2, got 1"
    ):
        Sequences([numbered(4)], window=1)


@pytest.mark.parametrize("kind", [Pairs, Sequences])
def test_label_maps_are_cut_and_mirrored_but_never_interpolated(kind: type[Pairs] | type[Sequences]) -> None:
    labels = numbered(8)[:, 1:2] * 7  # any number 0 to 133
    for number in range(20):
        sample = kind([labels], 3, crop=(8, 10))[number]
        assert sample.shape[1:] == (1, 8, 10)
        assert torch.equal(sample, read(sample) / 255)
        rows = read(sample)[0, 0]
        assert torch.equal(rows, rows[:, :1].expand(-1, 10))
        assert torch.equal(rows[:, 0].diff(), torch.full((7,), 7))


@pytest.mark.parametrize("kind", [Pairs, Sequences])
def test_workers_change_nothing(kind: type[Pairs] | type[Sequences]) -> None:
    data = kind([numbered(9), numbered(5, offset=30)], 3, crop=(8, 8), length=12)
    alone = list(DataLoader(data, batch_size=4))
    shared = list(DataLoader(data, batch_size=4, num_workers=2))
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))


def test_mirrored_is_a_clip() -> None:
    clip = numbered(3)
    assert len(Mirrored(clip)) == 3
    assert torch.equal(Mirrored(clip)[1], clip[1].flip(2))
