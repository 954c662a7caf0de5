"""References on both sides: against slow loops written from the definition, and what must not change."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.policies import EitherSide, Unexplained
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v import Adapter, Look, RefreshPolicy
from shortcutv2v.errors import InputError
from shortcutv2v.lookahead import LookAhead
from shortcutv2v.player import Player
from shortcutv2v.translate import Translator


@pytest.fixture
def model(chain: nn.Module) -> shortcutv2v.ShortcutV2V:
    wrapped = shortcutv2v.wrap(chain.eval(), "1", "4", channels=3, example_inputs=(torch.rand(1, 3, 8, 8),))
    with torch.no_grad():
        for parameter in wrapped.parameters():
            parameter.normal_(std=0.1)
    return wrapped


def play(stream: shortcutv2v.Stream, clip: Tensor) -> list[tuple[Tensor, int]]:
    return [(output, stream.distance) for output in LookAhead(stream).play(((frame,), {}) for frame in clip)]


@pytest.mark.parametrize("interval", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("length", [1, 2, 5, 6, 7, 13])
@torch.no_grad()
def test_a_fixed_interval_is_the_nearer_reference(model: shortcutv2v.ShortcutV2V, interval: int, length: int) -> None:
    """References 2n - 1 frames apart; the last frame is one if the one before is too far from it."""
    clip, gap = torch.rand(length, 1, 3, 8, 8), 2 * interval - 1
    references = list(range(0, length, gap))
    if length - 1 - references[-1] >= interval:
        references.append(length - 1)
    expected = []
    for t, frame in enumerate(clip):
        nearest = min(references, key=lambda reference: (abs(t - reference), reference))
        reference = model.reference(clip[nearest])[1]
        output = model.teacher(frame) if t == nearest else model.shortcut(reference, frame)
        expected.append((output, abs(t - nearest)))
    found = play(model.stream(refresh=interval), clip)
    assert [distance for _, distance in found] == [distance for _, distance in expected]
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(found, expected, strict=True))


@pytest.mark.parametrize("interval", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 4, 6, 7, 13])
@torch.no_grad()
def test_two_references_are_mixed_by_what_each_leaves_unexplained(chain: nn.Module, interval: int, length: int) -> None:
    model = shortcutv2v.wrap(chain.eval(), "1", "4", variant="paper", example_inputs=(torch.rand(1, 3, 24, 40),)).eval()
    clip, gap = torch.rand(length, 1, 3, 24, 40), 2 * interval - 1
    places = list(range(0, length, gap))
    if length - 1 - places[-1] > interval // 2:
        places.append(length - 1)
    references = {place: model.reference(clip[place])[1] for place in places}
    found = play(model.stream(refresh=shortcutv2v.BothSides(interval)), clip)
    assert len(found) == length
    for t, (output, distance) in enumerate(found):
        around = [references[max(p for p in places if p <= t)], *(references[p] for p in places if p > t)][:2]
        if distance == 0:
            assert t in places
            assert torch.equal(output, model.teacher(clip[t]))
        elif len(around) == 1:
            assert torch.equal(output, model.shortcut(around[0], clip[t]))
        else:
            carry = model.head(clip[t])
            after, before = (model.analyse(reference, carry)[0] for reference in reversed(around))
            wrong = [
                F.avg_pool2d(
                    F.avg_pool2d((p.f_hat - p.f_star)[..., ::2, ::2].square().mean(1, keepdim=True), 4, ceil_mode=True),
                    3,
                    stride=1,
                    padding=1,
                    count_include_pad=False,
                )
                for p in (after, before)
            ]
            share = F.interpolate(wrong[1] / sum(wrong), size=(24, 40), mode="bilinear")
            expected = model.tail(carry, (share * after.f_hat + (1 - share) * before.f_hat,))
            assert torch.allclose(output, expected, atol=1e-5)
            assert not torch.equal(output, model.shortcut(around[0], clip[t]))


@torch.no_grad()
def test_of_two_references_the_right_one_counts(model: shortcutv2v.ShortcutV2V) -> None:
    """A scene cut between two references: every frame has one of its own scene, whose prediction is exact."""
    scenes = [torch.rand(1, 3, 64, 64) for _ in range(2)]
    clip = torch.stack([scenes[t >= 3] for t in range(7)])
    for (output, _), frame in zip(play(model.stream(refresh=shortcutv2v.BothSides(4)), clip), clip, strict=True):
        assert torch.allclose(output, model.teacher(frame), atol=1e-4)


@pytest.mark.parametrize("limit", [0.0, 4e-5, 6e-5, 9e-5, 1e9])
@torch.no_grad()
def test_a_looking_policy_refuses_nothing_that_is_shown(model: shortcutv2v.ShortcutV2V, limit: float) -> None:
    clip = torch.rand(30, 1, 3, 8, 8)
    stream = model.stream(refresh=Unexplained(interval=7, limit=limit))
    found = play(stream, clip)
    references = {t: model.reference(clip[t])[1] for t, (_, distance) in enumerate(found) if distance == 0}
    for t, (output, distance) in enumerate(found):
        if distance == 0:
            assert torch.equal(output, model.teacher(clip[t]))
            continue
        made = {s: references[s] for s in (t - distance, t + distance) if s in references}
        shown = [s for s, reference in made.items() if torch.equal(model.shortcut(reference, clip[t]), output)]
        assert shown
        carry = model.head(clip[t])
        assert any(float(model.analyse(made[s], carry)[0].unexplained) <= limit for s in shown)
    assert stream.summary().frames == 30
    assert stream.shortcuts == sum(distance > 0 for _, distance in found)


@pytest.mark.parametrize(("alone", "limit", "kinds"), [
    (0.0, 0.0, {"full"}),
    (0.0, 5e-5, {"full", "both"}),
    (1e-6, 6e-5, {"full", "one", "both"}),
    (0.0, 1e9, {"full", "both"}),
    (1e9, 0.0, {"full", "one"}),
])  # fmt: skip
@torch.no_grad()
def test_what_one_reference_fails_at_is_made_of_both(
    model: shortcutv2v.ShortcutV2V, alone: float, limit: float, kinds: set[str]
) -> None:
    """Every frame is the teacher's, or made of the nearer reference, or of both around it, and within the limit."""
    clip = torch.rand(40, 1, 3, 8, 8)
    clip[:20] = clip[0] + 0.01 * clip[:20]  # nearly still, then noise
    found = play(model.stream(refresh=EitherSide(7, alone, limit)), clip)
    references = {t: model.reference(clip[t])[1] for t, (_, distance) in enumerate(found) if distance == 0}
    seen = set[str]()
    for t, (output, distance) in enumerate(found):
        if distance == 0:
            assert torch.equal(output, model.teacher(clip[t]))
            seen.add("full")
            continue
        carry = model.head(clip[t])
        before, after = ([s for s in references if 0 < way * (s - t) <= 7] for way in (-1, 1))
        made = {("one", s, s): model.analyse(references[s], carry) for s in (*before, *after)}
        for s, other in itertools.product(after, before):
            made["both", s, other] = model.analyse(references[s], carry, references[other])
        shown = [
            (kind, float(prediction[0].unexplained))
            for (kind, s, _), prediction in made.items()
            if torch.equal(model.tail(carry, model.compose(references[s], carry, prediction)), output)
        ]
        assert any(left <= (limit if kind == "both" else alone) for kind, left in shown)
        seen.add(shown[0][0])
    assert seen == kinds


@torch.no_grad()
def test_before_a_new_scene_one_reference_serves(model: shortcutv2v.ShortcutV2V) -> None:
    """A moving scene that needs both references, then another one: the policy is asked at its first frame."""
    scenes = [torch.rand(1, 3, 8, 8) for _ in range(2)]
    clip = torch.stack([(scenes[t >= 25] + 0.02 * torch.rand(1, 3, 8, 8)).clamp(0, 1) for t in range(50)])
    seen: list[tuple[int, bool]] = []

    @dataclass
    class Recorded(EitherSide):
        def __call__(self, look: Look) -> str:
            place = min(range(50), key=lambda t: float((model.head(clip[t]).a[0] - look.carry.a[0]).abs().max()))
            seen.append((place, look.both))
            return super().__call__(look)

    try:
        stream = model.stream(refresh=Recorded(9, 0.0, 1e9))
        play(stream, clip)
    finally:
        RefreshPolicy.known.pop("Recorded")
    assert any(both for _, both in seen)
    assert (25, False) in seen


def test_a_frame_that_nobody_looks_at_costs_no_block(
    model: shortcutv2v.ShortcutV2V, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass
    class Blind(EitherSide):
        def __call__(self, look: Look) -> str:
            return "estimate" if look.distance == 1 and not look.both else "unreachable"

    calls, run = [0], model.analyse

    def analyse(*args: Any) -> Any:
        calls[0] += 1
        return run(*args)

    monkeypatch.setattr(model, "analyse", analyse)
    try:
        stream = model.stream(refresh=Blind(interval=5))
        found = play(stream, torch.rand(20, 1, 3, 8, 8))
    finally:
        RefreshPolicy.known.pop("Blind")
    assert [distance for _, distance in found] == [0] * 20
    assert calls == [0]


def test_a_still_scene_needs_half_the_references(model: shortcutv2v.ShortcutV2V) -> None:
    clip = torch.rand(1, 1, 3, 8, 8).expand(60, -1, -1, -1, -1)
    streams = {ahead: model.stream(quality=30) for ahead in (False, True)}
    for frame in clip:
        streams[False](frame)
    play(streams[True], clip)
    causal, both = (sum(stream.refreshes.values()) for stream in streams.values())
    assert both <= causal * 0.65


def test_a_cut_costs_no_ghost_and_one_reference(model: shortcutv2v.ShortcutV2V) -> None:
    """A still scene, then another one: the new scene is predicted backwards from its own reference."""
    scenes = [torch.rand(1, 3, 8, 8) for _ in range(2)]
    clip = torch.stack([scenes[t >= 13] for t in range(26)])
    stream = model.stream(refresh=Unexplained(interval=9, limit=1e-12))
    with torch.no_grad():
        for (output, _), frame in zip(play(stream, clip), clip, strict=True):
            assert torch.equal(output, model.teacher(frame))
    assert sum(stream.refreshes.values()) <= 5


def test_frames_that_are_not_finite_are_no_reference(model: shortcutv2v.ShortcutV2V) -> None:
    clip = torch.rand(12, 1, 3, 8, 8)
    clip[5] = float("nan")
    found = play(model.stream(refresh=4), clip)
    assert [bool(output.isfinite().all()) for output, _ in found] == [t != 5 for t in range(12)]


def test_a_new_size_begins_anew(model: shortcutv2v.ShortcutV2V) -> None:
    frames = [torch.rand(1, 3, 8, 8)] * 3 + [torch.rand(1, 3, 6, 10)] * 4
    stream = model.stream(refresh=5)
    shapes = [tuple(output.shape[-2:]) for output in LookAhead(stream).play(((frame,), {}) for frame in frames)]
    assert shapes == [(8, 8)] * 3 + [(6, 10)] * 4
    assert stream.refreshes["size"] == 1


@pytest.mark.parametrize("policy", [Unexplained(7, 0.006), EitherSide(7, 0.0, 1e9)])
def test_a_long_video_takes_no_more_memory(model: shortcutv2v.ShortcutV2V, policy: RefreshPolicy) -> None:
    """Python's own memory and the number of living tensors, after 300 and after 1 500 frames."""
    frame = torch.rand(1, 3, 8, 8)
    outputs = LookAhead(model.stream(refresh=policy)).play(((frame + t % 7 / 50,), {}) for t in range(1500))

    def held() -> tuple[int, int]:
        gc.collect()
        return tracemalloc.get_traced_memory()[0], sum(issubclass(type(each), Tensor) for each in gc.get_objects())

    tracemalloc.start()
    try:
        _ = [None for _, _ in zip(range(300), outputs, strict=False)]
        memory, tensors = held()
        _ = [None for _ in outputs]
        later, more = held()
    finally:
        tracemalloc.stop()
    assert more <= tensors
    assert later - memory < 500_000


class Counting(Adapter):
    """Opens with the first frame itself, then runs the teacher."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seen = 0

    def opening(self, frame: Tensor, state: Any) -> Any:
        self.seen += 1
        return frame if self.seen <= 2 else None


def pictures(clip: Tensor) -> Iterator[Tensor]:
    yield from (clip[:, 0] * 255).byte()


def test_a_translator_yields_pictures_in_order(model: shortcutv2v.ShortcutV2V) -> None:
    adapter = Counting(model.teacher)
    translator = Translator(adapter, model, lookahead=True, refresh=4)
    clip = torch.rand(11, 1, 3, 8, 8)
    found = list(translator.play(pictures(clip)))
    assert len(found) == translator.frames == 11
    assert all(torch.equal(a, b) for a, b in zip(found[:2], pictures(clip[:2]), strict=True))
    assert translator.stream.refreshes.total() == 2
    with pytest.raises(InputError, match="without one the teacher does every frame"):
        Translator(adapter, quality=40)


def test_recurrent_teachers_cannot_look_ahead(chain: nn.Module) -> None:
    class Fed(Adapter):
        def advance(self, state: Any, frame: Tensor, output: Any) -> Any:
            return output

    adapter = Fed(chain, "1", "4")
    with pytest.raises(InputError, match="Fed is recurrent"):
        next(Player(adapter, chain).ahead(torch.rand(2, 1, 3, 8, 8), iter))
    clip = torch.rand(5, 1, 3, 8, 8)
    model = adapter.wrap(clip[0])
    ahead, causal = (Translator(adapter, model, lookahead=each) for each in (True, False))
    shown = list(ahead.play(pictures(clip)))
    assert all(torch.equal(a, causal(b)) for a, b in zip(shown, pictures(clip), strict=True))
