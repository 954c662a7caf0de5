"""The feature cache: what comes out is what the teacher makes, and only of this teacher, cut and clip."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

import shortcutv2v
from shortcutv2v import Adapter, video
from shortcutv2v.distill.cache import FeatureCache
from shortcutv2v.distill.cache.features import Binder, Features, collate
from shortcutv2v.distill.clips import Mirrored, Part
from shortcutv2v.distill.data import Pairs, Sequences
from shortcutv2v.distill.module import Distiller
from shortcutv2v.distill.progress import quiet_lightning
from shortcutv2v.errors import InputError

SIZE = (16, 20)


class Halving(nn.Module):
    """Features at half size, a skip and the picture itself at full size, a style code for the whole frame."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, padding=1)
        self.down = nn.Conv2d(5, 6, 4, stride=2, padding=1)
        self.mid = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.out = nn.Conv2d(6 + 5, 3, 3, padding=1)
        self.style = nn.Linear(5, 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        skip = self.first(x)
        f = self.mid(self.down(skip).relu())
        up = nn.functional.interpolate(f, size=(x.shape[-2], x.shape[-1]))
        style = self.style(skip.mean((2, 3)))
        return self.out(torch.cat((up, skip), 1)) * style[..., None, None] + x


class Remembering(Adapter):
    """Feeds half of its last picture back in, and paints the first frame otherwise."""

    def start(self) -> Tensor | None:
        return None

    def opening(self, frame: Tensor, state: Tensor | None) -> Tensor | None:
        return frame.flip(-1) if state is None else None

    def inputs(self, frame: Tensor, state: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (frame + state / 2,), {}

    def advance(self, state: Any, frame: Tensor, output: Tensor) -> Tensor:
        return output


def clip_of(frames: int = 6, size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (frames, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def wrapped(teacher: nn.Module | None = None, cut: tuple[str, str] = ("down", "mid")) -> shortcutv2v.ShortcutV2V:
    torch.manual_seed(1)
    return shortcutv2v.wrap(teacher or Halving(), *cut, example_inputs=(torch.rand(1, 3, *SIZE),), variant="flow")


def live(model: shortcutv2v.ShortcutV2V, frame: Tensor) -> tuple[shortcutv2v.Carry, tuple[Tensor, ...]]:
    carry = model.head(frame[None].float() / 255)
    return carry, model.middle(carry)


def written(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.features"))


@torch.no_grad()
def test_cached_features_are_the_teachers(tmp_path: Path) -> None:
    model, clip = wrapped(), clip_of()
    features = FeatureCache(tmp_path, model).features(clip)
    assert len(features) == len(clip)
    for stored, frame in zip(features, clip, strict=True):
        carry, f = live(model, frame)
        (batch,) = collate([[stored]])
        bound = Binder(model)(batch)
        assert bound.carry.signature == carry.signature
        torch.testing.assert_close(bound.f[0], f[0], rtol=2**-8, atol=0)
        torch.testing.assert_close(bound.carry.a[0], carry.a[0], rtol=2**-8, atol=0)
        picture = model.tail(bound.carry, bound.f)
        assert stored.f[0].dtype == torch.bfloat16
        torch.testing.assert_close(picture, model.teacher(frame[None].float() / 255), rtol=0.02, atol=0.02)


def test_pictures_keep_their_precision(tmp_path: Path) -> None:
    model = wrapped()
    kept = FeatureCache(tmp_path, model).features(clip_of())[2].carry.kept
    (picture,) = [leaf for leaf in kept if leaf.shape == (1, 3, *SIZE)]
    torch.testing.assert_close(picture, clip_of()[2:3].float() / 255, rtol=0, atol=0)


@torch.no_grad()
def test_memory_of_the_teacher_runs_through_the_clip(tmp_path: Path) -> None:
    model, clip = wrapped(), clip_of(4)
    adapter = Remembering(model.teacher, "", "")
    features = FeatureCache(tmp_path, model, adapter).features(clip)
    assert len(features) == 3  # the first frame is not the teacher's
    last = clip[:1].float().flip(-1) / 255
    for frame, stored in zip(clip[1:], features, strict=True):
        seen = frame[None].float() / 255 + last / 2
        torch.testing.assert_close(stored.f[0].float(), model.middle(model.head(seen))[0], rtol=2**-8, atol=0)
        last = model.teacher(seen)


def test_a_second_cache_finds_what_the_first_has_written(tmp_path: Path) -> None:
    teacher, clip = Halving(), clip_of()
    first, second = FeatureCache(tmp_path, wrapped(teacher)), FeatureCache(tmp_path, wrapped(teacher))
    expected = first.features(clip)
    (path,) = written(tmp_path)
    before = path.stat().st_ino
    found = second.features(clip)
    assert path.stat().st_ino == before
    assert (first.found, second.found) == (0, 1)
    assert second.frames == 6
    assert second.bytes == path.stat().st_size
    assert first.seconds > second.seconds == 0
    assert torch.equal(found[3].f[0], expected[3].f[0])


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the list of maps is Linux's")
def test_reading_keeps_nothing_of_the_file_in_memory(tmp_path: Path) -> None:
    stored = FeatureCache(tmp_path, wrapped()).features(clip_of())
    carry, f = stored[1]
    assert str(stored.path) in Path("/proc/self/maps").read_text()
    del carry, f
    assert str(stored.path) not in Path("/proc/self/maps").read_text()


def test_masks_and_numbers_among_the_features_are_found_again(tmp_path: Path) -> None:
    class Masked(Halving):
        def forward(self, x: Tensor) -> Tensor:
            bright, count = x[:, :1] > 0.5, (x * 255).sum((1, 2, 3)).long()
            return torch.where(bright, super().forward(x), x) + count.view(-1, 1, 1, 1)

    teacher = Masked()
    first = FeatureCache(tmp_path, wrapped(teacher)).features(clip_of())
    assert {leaf.dtype for leaf in first[0].carry.kept} >= {torch.bool, torch.long}
    second = FeatureCache(tmp_path, wrapped(teacher))
    second.features(clip_of())
    assert second.found == 1


def _change_weight(teacher: Halving) -> None:
    teacher.mid[0].weight.data[0, 0, 0, 0] += 1e-3


def _change_buffer(teacher: Halving) -> None:
    teacher.mid[1].running_mean += 1e-3


def _change_mode(teacher: Halving) -> None:
    teacher.mid[1].train()


@pytest.mark.parametrize("change", [_change_weight, _change_buffer, _change_mode])
def test_another_teacher_gets_another_file(tmp_path: Path, change: Any) -> None:
    teacher = Halving()
    FeatureCache(tmp_path, wrapped(teacher)).features(clip_of())
    change(teacher)
    cache = FeatureCache(tmp_path, wrapped(teacher))
    cache.features(clip_of())
    assert cache.found == 0
    assert len(written(tmp_path)) == 2


def test_statistics_that_a_training_norm_only_collects_do_not_count(tmp_path: Path) -> None:
    teacher = Halving().train()
    FeatureCache(tmp_path, wrapped(teacher)).features(clip_of())
    cache = FeatureCache(tmp_path, wrapped(teacher))
    cache.features(clip_of())
    assert cache.found == 1


def test_another_cut_adapter_or_clip_gets_another_file(tmp_path: Path) -> None:
    class Other(Adapter):
        gain: float

    teacher = Halving()
    model = wrapped(teacher)
    bright, dark = Other(teacher, "", ""), Other(teacher, "", "")
    bright.gain, dark.gain = 1.0, 0.5
    FeatureCache(tmp_path, wrapped(teacher)).features(clip_of())
    FeatureCache(tmp_path, wrapped(teacher, ("first", "out"))).features(clip_of())
    FeatureCache(tmp_path, model, bright).features(clip_of())
    FeatureCache(tmp_path, model, dark).features(clip_of())
    FeatureCache(tmp_path, model).features(clip_of(seed=1))
    FeatureCache(tmp_path, model).features(Part(clip_of(), 1, 4))
    FeatureCache(tmp_path, model).features(Mirrored(clip_of()))
    assert len(written(tmp_path)) == 7


def test_a_changed_file_is_another_clip(tmp_path: Path) -> None:
    def record(seed: int) -> video.Frames:
        with video.create(tmp_path / "clip.mp4", rate=25) as writer:
            for frame in clip_of(3, (16, 32), seed):
                writer.write(frame)
        return video.Frames(tmp_path / "clip.mp4")

    cache = FeatureCache(tmp_path / "cache", wrapped())
    cache.features(record(0))
    cache.features(video.Frames(tmp_path / "clip.mp4"))
    assert len(written(tmp_path / "cache")) == 1
    os.utime(tmp_path / "clip.mp4", ns=(1, 1))
    cache.features(video.Frames(tmp_path / "clip.mp4"))
    cache.features(video.Frames(tmp_path / "clip.mp4", size=(16, 20)))
    assert len(written(tmp_path / "cache")) == 3


def test_code_that_the_key_cannot_see_is_noticed(tmp_path: Path) -> None:
    teacher = Halving()
    FeatureCache(tmp_path, wrapped(teacher)).features(clip_of())
    teacher.mid[0].forward = lambda x: nn.Conv2d.forward(teacher.mid[0], x) * 1.5
    cache = FeatureCache(tmp_path, wrapped(teacher))
    found = cache.features(clip_of())
    assert cache.found == 0
    with torch.no_grad():
        torch.testing.assert_close(found[0].f[0].float(), live(cache.model, clip_of()[0])[1][0], rtol=2**-8, atol=0)


@pytest.mark.parametrize("damage", ["cut short", "too long", "other bytes", "empty"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str) -> None:
    teacher = Halving()
    FeatureCache(tmp_path, wrapped(teacher)).features(clip_of())
    (path,) = written(tmp_path)
    good = path.read_bytes()
    bad = {"cut short": good[:-1], "too long": good + b"x", "other bytes": b"?" * len(good), "empty": b""}
    path.write_bytes(bad[damage])
    cache = FeatureCache(tmp_path, wrapped(teacher))
    cache.features(clip_of())
    assert cache.found == 0
    assert path.read_bytes() == good


def test_frames_are_counted_as_they_are_made(tmp_path: Path) -> None:
    seen: list[int] = []
    teacher = Halving()
    FeatureCache(tmp_path, wrapped(teacher), watch=seen.append).features(clip_of())
    assert sum(seen) == 6 < len(seen) + 1
    FeatureCache(tmp_path, wrapped(teacher), watch=seen.append).features(clip_of())
    assert sum(seen) == 12


def test_a_full_disk_is_said_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(InputError, match=r"the features of 6 frames take .* GB, more than is free on the disk"):
        FeatureCache(tmp_path, wrapped()).features(clip_of())
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_leaves_nothing_that_counts(tmp_path: Path) -> None:
    code = (
        "import os, torch, shortcutv2v\n"
        "from shortcutv2v.distill.cache import FeatureCache\n"
        "class Deadly:\n"
        "    def __len__(self): return 6\n"
        "    def __getitem__(self, i):\n"
        "        if torch.is_grad_enabled() is False and i == 4: os.kill(os.getpid(), 9)\n"
        "        return torch.zeros(3, 16, 20, dtype=torch.uint8)\n"
        "teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))\n"
        "model = shortcutv2v.wrap(teacher, '0', '2', example_inputs=(torch.rand(1, 3, 16, 20),))\n"
        f"FeatureCache({str(tmp_path)!r}, model).features(Deadly())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".partial"
    assert left.stat().st_size > 0
    FeatureCache(tmp_path, wrapped())
    assert left.exists()  # it could be that of a run under way
    os.utime(left, (time.time() - 3600,) * 2)
    FeatureCache(tmp_path, wrapped())
    assert not left.exists()


@torch.no_grad()
def test_crops_of_features_go_through_the_tail_like_features_of_crops(tmp_path: Path) -> None:
    model, clip = wrapped(), clip_of(3)
    pairs = Pairs([clip], max_interval=1, crop=(8, 10), reverse=False, cache=FeatureCache(tmp_path, model))
    binder, places = Binder(model), set()
    for number in range(12):
        batch = [binder(features) for features in collate([pairs[number]])]
        frames = [features.carry.kept[_picture(features)] for features in batch]
        top, left = _place(frames[1], clip)
        places.add((top, left))
        for features, frame in zip(batch, frames, strict=True):
            which = next(i for i in range(3) if torch.equal(_cut(clip[i].float() / 255, top, left), frame[0]))
            carry, f = live(model, clip[which])
            half = f[0][..., top // 2 : top // 2 + 4, left // 2 : left // 2 + 5]
            torch.testing.assert_close(features.f[0], half, rtol=2**-8, atol=0)
            skip = next(leaf for leaf in carry.kept if leaf.shape[1:] == (5, *SIZE))
            found = next(leaf for leaf in features.carry.kept if leaf.shape[1:] == (5, 8, 10))
            torch.testing.assert_close(found[0], _cut(skip[0], top, left), rtol=2**-8, atol=0)
            assert model.tail(features.carry, features.f).shape == (1, 3, 8, 10)
    assert len(places) > 5
    assert all(top % 2 == left % 2 == 0 for top, left in places)
    assert {top for top, _ in places} <= set(range(0, 9, 2))


def _picture(features: Features) -> int:
    return next(i for i, leaf in enumerate(features.carry.kept) if leaf.dim() == 4 and leaf.shape[1] == 3)


def _cut(picture: Tensor, top: int, left: int) -> Tensor:
    return picture[:, top : top + 8, left : left + 10]


def _place(crop: Tensor, clip: Tensor) -> tuple[int, int]:
    """Where in the clip a crop was cut."""
    return next(
        (top, left)
        for top in range(9)
        for left in range(11)
        for frame in clip
        if torch.equal(_cut(frame.float() / 255, top, left), crop[0])
    )


def test_style_codes_are_not_cropped_and_make_a_batch(tmp_path: Path) -> None:
    model = wrapped()
    pairs = Pairs([clip_of()], crop=(8, 8), length=4, cache=FeatureCache(tmp_path, model))
    (batch,) = DataLoader(pairs, batch_size=4, collate_fn=collate)
    assert [features.f[0].shape for features in batch] == [(4, 6, 4, 4)] * 2
    bound = Binder(model)(batch[0])
    assert bound.carry.signature == model.head(torch.rand(4, 3, 8, 8)).signature
    assert model.tail(bound.carry, bound.f).shape == (4, 3, 8, 8)


def test_clips_of_different_sizes_mix_under_a_crop(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, wrapped())
    clips = [clip_of(), clip_of(size=(15, 21), seed=3)]
    (batch,) = DataLoader(Pairs(clips, crop=(8, 8), length=8, cache=cache), batch_size=8, collate_fn=collate)
    assert batch[1].carry.a[0].shape == (8, 6, 4, 4)
    with pytest.raises(InputError, match="different sizes"):
        Pairs(clips, cache=cache)
    with pytest.raises(InputError, match="16x20 is smaller than the crop 18x8"):
        Pairs(clips, crop=(18, 8), cache=cache)


def test_crops_are_multiples_of_the_stride(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a crop that is a multiple of 2"):
        Pairs([clip_of()], crop=(9, 8), cache=FeatureCache(tmp_path, wrapped()))


def test_features_that_do_not_lie_over_the_frame_stay_whole(tmp_path: Path) -> None:
    class Tokens(Halving):
        def forward(self, x: Tensor) -> Tensor:
            skip = self.first(x)
            tokens = self.style(skip.flatten(2).transpose(1, 2))
            f = self.mid(self.down(skip).relu())
            return f.mean() * tokens

    model = shortcutv2v.wrap(Tokens(), "down", "mid", example_inputs=(torch.rand(1, 3, *SIZE),))
    with pytest.warns(UserWarning, match="whole frames, not as crops: a feature .* does not lie over the frame"):
        pairs = Pairs([clip_of()], crop=(8, 8), cache=FeatureCache(tmp_path, model))
    assert pairs[0][0].f[0].shape == (1, 6, 8, 10)


def test_samples_depend_on_seed_and_number_alone(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, wrapped())
    pairs = Pairs([clip_of()], crop=(8, 8), length=6, seed=4, cache=cache)
    (alone,) = DataLoader(pairs, batch_size=6, collate_fn=collate)
    (together,) = DataLoader(pickle.loads(pickle.dumps(pairs)), batch_size=6, collate_fn=collate, num_workers=1)
    other = collate([Pairs([clip_of()], crop=(8, 8), seed=5, cache=cache)[i] for i in range(6)])
    for a, b, c in zip(alone, together, other, strict=True):
        assert torch.equal(a.f[0], b.f[0])
        assert a.carry.signature == b.carry.signature
        assert not torch.equal(a.f[0], c.f[0])


def test_sequences_are_consecutive(tmp_path: Path) -> None:
    model = wrapped()
    clip = clip_of(7)
    features = FeatureCache(tmp_path, model).features(clip)
    with pytest.warns(UserWarning, match="1 of 2 clips left out: they have fewer than 3 frames"):
        windows = Sequences([clip, clip_of(2)], window=3, cache=FeatureCache(tmp_path, model))
    for number in range(10):
        found = [next(i for i in range(7) if torch.equal(features[i].f[0], one.f[0])) for one in windows[number]]
        assert found == list(range(found[0], found[0] + 3))


def test_time_runs_backwards_only_for_teachers_without_memory(tmp_path: Path) -> None:
    model = wrapped()
    plain = Pairs([clip_of()], cache=FeatureCache(tmp_path, model))
    recurrent = Pairs([clip_of()], cache=FeatureCache(tmp_path, model, Remembering(model.teacher, "", "")))
    assert plain._draw.reverse
    assert not recurrent._draw.reverse


def test_inputs_that_change_their_structure_are_refused(tmp_path: Path) -> None:
    class Growing(Adapter):
        def start(self) -> int:
            return 16

        def inputs(self, frame: Tensor, state: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return (frame[..., :state],), {}

        def advance(self, state: int, frame: Tensor, output: Tensor) -> int:
            return state + 2

    model = wrapped()
    with pytest.raises(InputError, match="at frame 1 are of another structure"):
        FeatureCache(tmp_path, model, Growing(model.teacher, "", "")).features(clip_of())
    assert not list(tmp_path.iterdir())


def test_features_of_another_model_are_refused(tmp_path: Path) -> None:
    (stored,) = collate([[FeatureCache(tmp_path, wrapped()).features(clip_of())[0]]])
    with pytest.raises(InputError, match="belong to another model"):
        Binder(wrapped(cut=("first", "out")))(stored)


def test_training_on_features_is_training_on_frames(tmp_path: Path) -> None:
    model, clip = wrapped(), clip_of()
    distiller = Distiller(model)
    frames = default_collate([Pairs([clip], flip=False, seed=3)[i] for i in range(4)])
    features = collate([Pairs([clip], seed=3, cache=FeatureCache(tmp_path, model))[i] for i in range(4)])
    (one,), (two,) = distiller.shortcut_frames(frames), distiller.shortcut_frames(features)
    torch.testing.assert_close(two.target, one.target, rtol=0, atol=5e-3)
    torch.testing.assert_close(two.picture, one.picture, rtol=0, atol=5e-3)
    for (name, expected), found in zip(distiller.losses(one).items(), distiller.losses(two).values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0.02, atol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_lightning_takes_features_in_every_precision(tmp_path: Path, precision: Any) -> None:
    model = wrapped()
    pairs = Pairs([clip_of()], crop=(8, 8), length=5, cache=FeatureCache(tmp_path, model))
    before = copy.deepcopy(model.state_dict())
    with quiet_lightning():
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator="cpu",
            precision=precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Distiller(model, lr=1e-2), DataLoader(pairs, batch_size=2, collate_fn=collate))
    assert trainer.global_step == 3  # the last batch is a smaller one
    assert any(not torch.equal(before[key].to(value), value) for key, value in model.state_dict().items())
