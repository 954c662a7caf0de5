"""Rolling refreshes: parts of the middle are the middle, and a stream by parts is what its definition says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from examples.unsup.teacher import build_teacher, published_cut
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v import Adapter
from shortcutv2v.errors import InputError
from shortcutv2v.graph.partition import shares
from shortcutv2v.lookahead import LookAhead
from shortcutv2v.ops.flops import MacCounter
from shortcutv2v.quality import Quality
from shortcutv2v.translate import Translator
from shortcutv2v.windows import Windows

K = 3


class Tangled(nn.Module):
    """Skips, the input, a style, attention, halves and work in place, all between `a` and `f`."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.one, self.two, self.three, self.dec, self.out = (
            nn.Conv2d(n, m, 3, padding=1) for n, m in ((3, 8), (8, 8), (8, 8), (11, 8), (8, 8), (8, 3))
        )
        self.norm, self.attention = nn.InstanceNorm2d(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.gain = 1.0

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        a = self.enc(x)
        first = self.norm(self.one(a))
        first.relu_()
        tokens = self.two(first).flatten(2).transpose(1, 2)
        mixed = self.attention(tokens, tokens, tokens)[0].transpose(1, 2).reshape(first.shape)
        left, right = (mixed + first).chunk(2, 1)
        left *= 1.5
        deep = self.three(torch.cat((right.sigmoid(), left, x), 1)) * self.gain
        deep += first if style is None else first * style
        return self.out(self.dec(deep + a)).tanh()


class Forked(nn.Module):
    """Two features between, on branches that share `a`; one of them runs as a whole in a coarse capture."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.side, self.out = (nn.Conv2d(n, m, 3, padding=1) for n, m in ((3, 8), (8, 8), (16, 3)))
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc(x)
        return self.out(torch.cat((self.body(a), self.side(a)), 1))


def chain(layers: int = 20) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3 if i == 0 else 8, 3 if i == layers - 1 else 8, 3, padding=1) for i in range(layers))
    )


TEACHERS: dict[str, tuple[Callable[[], nn.Module], Any, Any]] = {
    "chain": (chain, "0", "18"),
    "instance norm": (lambda: build_teacher({"ngf": 4, "n_blocks": 3}), *published_cut(3)),
    "tangled": (Tangled, "enc", "dec"),
    "leaking": (Tangled, "enc", "three"),
    "two branches": (Forked, ["enc", "enc"], ["body.2", "side"]),
}


@pytest.fixture(params=TEACHERS)
def model(request: pytest.FixtureRequest) -> shortcutv2v.ShortcutV2V:
    torch.manual_seed(0)
    build, enc, dec = TEACHERS[request.param]
    return moved(shortcutv2v.wrap(build().eval(), enc, dec, on_leak="reuse"))


@pytest.fixture
def tangled() -> shortcutv2v.ShortcutV2V:
    torch.manual_seed(0)
    return moved(shortcutv2v.wrap(Tangled().eval(), "enc", "dec"))


def moved(model: shortcutv2v.ShortcutV2V) -> shortcutv2v.ShortcutV2V:
    """Give the blocks weights that do something."""
    model.materialise(torch.rand(1, 3, 16, 24))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model


def video(frames: int, rows: int = 1) -> Tensor:
    return torch.rand(frames, rows, 3, 16, 24, generator=torch.Generator().manual_seed(1))


def by_definition(model: shortcutv2v.ShortcutV2V, clip: Tensor, k: int) -> Iterator[tuple[Tensor, int]]:
    """Frame 0 is a full pass, and serves k frames; after them, the frame at which each round of k began serves k."""
    for t, frame in enumerate(clip):
        made_from = 0 if t <= k else 1 + k * ((t - 1) // k - 1)
        output, reference = model.reference(clip[made_from])
        yield (output if t == 0 else model.shortcut(reference, frame)), t - made_from


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
@torch.no_grad()
def test_all_parts_in_a_row_are_the_middle(model: shortcutv2v.ShortcutV2V, count: int) -> None:
    frame = video(1)[0]
    whole = model.middle(model.head(frame))
    for carry in (model.fine_head(frame), model.head(frame)):
        for _ in range(2):  # no part may change the carry
            *before, f = model.middle_in_parts(carry, count)
            assert before == [()] * (count - 1)
            assert all(map(torch.equal, f, whole))
            assert len(f) == len(whole)


@torch.no_grad()
def test_a_stream_is_what_its_definition_says(model: shortcutv2v.ShortcutV2V) -> None:
    clip, stream, ages = video(4 * K + 1), model.stream(refresh=K, rolling=True), []
    frame = torch.empty_like(clip[0])
    for given, (expected, age) in zip(clip, by_definition(model, clip, K), strict=True):
        frame.copy_(given)  # one buffer for all frames, as cameras fill it
        assert torch.equal(stream(frame), expected)
        assert stream.distance == age
        ages.append(age)
    assert dict(stream.refreshes) == {"first": 1}
    assert ages[K + 1 :] == [3, 4, 5] * 3
    mean = sum(ages) / (len(ages) - 1)
    assert f"references {mean:.1f} frames old in the mean, 5 at most" in str(stream.summary())
    assert (stream.summary().speed or 0) > 0


def test_no_frame_costs_a_middle() -> None:
    model = moved(shortcutv2v.wrap(chain(), "0", "18"))
    costs: dict[bool, list[int]] = {}
    for rolling in (False, True):
        stream = model.stream(refresh=4, rolling=rolling)
        for frame in video(14):
            with MacCounter() as counter:
                stream(frame)
            costs.setdefault(rolling, []).append(counter.total)
    even, uneven = sorted(costs[True][1:]), sorted(costs[False][1:])
    assert even[-1] <= 1.25 * even[len(even) // 2]
    assert uneven[-1] > 1.25 * uneven[len(uneven) // 2]


def test_parts_are_as_even_as_their_steps_allow() -> None:
    for costs in torch.randint(0, 9, (50, 7), generator=torch.Generator().manual_seed(0)).tolist():
        places = [(i, j) for i in range(8) for j in range(i, 8)]  # three parts: where the second and the third begin
        best = min(max(sum(costs[:i]), sum(costs[i:j]), sum(costs[j:])) for i, j in places)
        found = shares(costs, 3)
        assert found == sorted(found)
        assert max(sum(c for c, part in zip(costs, found, strict=True) if part == n) for n in range(3)) == best


@torch.no_grad()
def test_rows_of_a_batch_roll_together(tangled: shortcutv2v.ShortcutV2V) -> None:
    clip, stream = video(2 * K + 2, rows=2), tangled.stream(refresh=K, rolling=True)
    for frame, (expected, _) in zip(clip, by_definition(tangled, clip, K), strict=True):
        assert torch.equal(stream(frame), expected)
    assert stream.distances == (K, K)


@pytest.mark.parametrize("what", ["reset", "size", "condition", "teacher", "mode", "not finite"])
@torch.no_grad()
def test_what_cannot_be_predicted_is_a_full_pass_and_rounds_begin_anew(
    tangled: shortcutv2v.ShortcutV2V, what: str
) -> None:
    clip, stream, style = video(3 * K), tangled.stream(refresh=K, rolling=True), torch.ones(1)
    begun = K + 1 if what == "condition" else K + 2  # one round is complete, or the next is under way, too
    for frame in clip[:begun]:
        stream(frame, style)
    if what == "reset":
        stream.reset()
    if what == "condition":
        style.mul_(2)  # in the buffer that the round began with
    if what == "teacher":
        tangled.teacher.gain = 2.0
    if what == "mode":
        tangled.teacher.train()
    if what == "size":
        clip = clip[..., :12, :]
    if what == "not finite":
        spoilt = clip[0].clone()
        spoilt[..., 0, 0] = torch.nan
        stream(spoilt, style)
        assert stream.reference is None
    fresh = tangled.stream(refresh=K, rolling=True)
    for frame in clip[begun:]:
        assert torch.equal(stream(frame, style), fresh(frame, style))
        assert stream.distances == fresh.distances


@torch.no_grad()
def test_features_that_are_not_finite_never_take_effect(tangled: shortcutv2v.ShortcutV2V) -> None:
    stream, clip = tangled.stream(refresh=K, rolling=True), video(K + 3)
    for frame in clip[:2]:
        stream(frame)
    weight = tangled.teacher.three.weight
    before = weight.clone()
    weight.fill_(torch.inf)  # of the middle alone, while a round is under way
    for frame in clip[2 : K + 1]:
        assert stream(frame).isfinite().all()
    weight.copy_(before)
    assert torch.equal(stream(clip[-1]), tangled.teacher(clip[-1]))
    assert dict(stream.refreshes) == {"first": 2}


def test_a_part_that_fails_ends_its_round(tangled: shortcutv2v.ShortcutV2V, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, clip, full = tangled.stream(refresh=K, rolling=True), video(8 * K), False
    real = type(tangled).middle_in_parts

    def parts(*given: Any) -> Iterator[Any]:
        for f in real(*given):
            if full:
                raise MemoryError
            yield f

    monkeypatch.setattr(type(tangled), "middle_in_parts", parts)
    distances = []
    for number, frame in enumerate(clip):
        full = number in (3, 4, 9)
        with pytest.raises(MemoryError) if full else nullcontext():
            stream(frame)
            distances.append(stream.distance)
    assert dict(stream.refreshes) == {"first": 1, "distance": 1}  # no reference grows older than it would have
    assert max(distances) < 2 * K
    assert sorted(distances[-K:]) == [3, 4, 5]


def test_an_interval_beyond_the_trained_one_warns(tangled: shortcutv2v.ShortcutV2V) -> None:
    tangled.trained_interval = 2 * K
    tangled.stream(refresh=K, rolling=True)
    with pytest.warns(UserWarning, match=r"trained for intervals up to 6, Every\(interval=8\) allows 8"):
        tangled.stream(refresh=K + 1, rolling=True)


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        ({"quality": 40}, "fixed interval of at least 2, got Quality"),
        ({"speed": 2}, "fixed interval of at least 2, got Speed"),
        ({"refresh": lambda look: False}, "fixed interval of at least 2, got Function"),
        ({"refresh": 1}, r"fixed interval of at least 2, got Every\(interval=1\)"),
        ({"windows": True}, r"for windows, give windows=Windows\(rolling"),
        ({"windows": Windows(rolling=0.1)}, r"for windows, give windows=Windows\(rolling"),
    ],
)
def test_refuses_other_goals(tangled: shortcutv2v.ShortcutV2V, goal: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        tangled.stream(**goal, rolling=True)


def test_refuses_what_it_cannot_do_with_one_line_each(tangled: shortcutv2v.ShortcutV2V) -> None:
    frame = video(1)[0]
    tangled.refresh = Quality(40)
    with pytest.raises(InputError, match="neither quality nor speed"):
        tangled.stream(rolling=True)
    with pytest.raises(InputError, match="streams\\(\\) refreshes every video at once"):
        tangled.streams(2, refresh=K, rolling=True)
    with pytest.raises(InputError, match="cannot look ahead"):
        LookAhead(tangled.stream(refresh=K, rolling=True))
    hooks = shortcutv2v.wrap(tangled.teacher, "enc", "dec", example_inputs=(frame,), capture="hooks")
    with pytest.raises(InputError, match="captured by hooks") as refused:
        hooks.stream(refresh=K, rolling=True)(frame)
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="captured by hooks"):
        hooks.middle_in_parts(hooks.head(frame), 2)
    stream = tangled.stream(refresh=K, rolling=True)
    stream(frame)
    tangled.compile(backend="eager")
    with pytest.raises(InputError, match=r"which compile\(\) does not reach"):
        stream(frame)


def test_an_exported_teacher_is_divided_too() -> None:
    model = moved(shortcutv2v.wrap(Tangled().eval(), "enc", "dec", capture="export"))
    frame = video(1)[0]
    with torch.no_grad():
        *_, f = model.middle_in_parts(model.fine_head(frame), 4)
        assert torch.equal(f[0], model.middle(model.head(frame))[0])


def test_a_translator_rolls_and_looks_at_no_later_frame(tangled: shortcutv2v.ShortcutV2V) -> None:
    translator = Translator(Adapter(tangled.teacher), tangled, lookahead=True, refresh=K, rolling=True)
    frames = [(frame[0] * 255).byte() for frame in video(2 * K + 2)]
    assert len(list(translator.play(frames))) == len(frames)
    assert translator.stream is not None
    assert translator.stream.distance == K
