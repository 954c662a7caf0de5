"""An adapter's mistakes are reported at the first frame, with the expected form."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shortcutv2v import Adapter
from shortcutv2v.adapter_check import check_adapter
from shortcutv2v.errors import CutError, InputError, ShortcutError
from shortcutv2v.labels import LabelAdapter
from shortcutv2v.translate import Translator

FRAME = torch.linspace(0, 1, 3 * 8 * 8).view(1, 3, 8, 8)
BYTES = (FRAME[0] * 255).byte()


class Net(nn.Module):
    """A picture in a dictionary."""

    def __init__(self, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Identity() for _ in range(4)))
        self.scale, self.shift = scale, shift
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        return {"picture": self.layers(x) * self.scale + self.shift}


def adapter_with(**methods: Callable[..., Any]) -> Adapter:
    """An adapter whose other methods are right."""
    right = {"image": lambda self, output: output["picture"]}
    return type("Mine", (Adapter,), {**right, **methods})(Net(), "layers.0", "layers.2")


WRONG: dict[str, tuple[dict[str, Callable[..., Any]], str]] = {
    "inputs: a tensor": ({"inputs": lambda s, f, _: f}, "return (frame,), {}"),
    "inputs: one tuple": ({"inputs": lambda s, f, _: (f,)}, "return (frame,), {}"),
    "inputs: two tensors": ({"inputs": lambda s, f, _: (f, f)}, "return (frame,), {}"),
    "inputs: tensor and dict": ({"inputs": lambda s, f, _: (f, {})}, "return (frame,), {}"),
    "inputs: nothing": ({"inputs": lambda s, f, _: None}, "inputs() returned None"),
    "inputs: a name": ({"inputs": lambda s, f, _: (f.missing, {})}, "inputs() failed with AttributeError"),
    "inputs: too many": ({"inputs": lambda s, f, _: ((f, f), {})}, "change what Mine.inputs() returns"),
    "inputs: a keyword": ({"inputs": lambda s, f, _: ((f,), {"style": 1})}, "style=a value of type int"),
    "image: a dict": ({"image": lambda s, o: o}, "return output['picture']"),
    "image: a tuple": ({"image": lambda s, o: (o["picture"],)}, "return output[0]"),
    "image: no batch": ({"image": lambda s, o: o["picture"][0]}, "(1, 3, height, width)"),
    "image: grey": ({"image": lambda s, o: o["picture"].mean(1)}, "picture[:, None].expand(-1, 3, -1, -1)"),
    "image: grey channel": ({"image": lambda s, o: o["picture"][:, :1]}, "picture.expand(-1, 3, -1, -1)"),
    "image: two channels": ({"image": lambda s, o: o["picture"][:, :2]}, "(1, 3, height, width)"),
    "image: alpha": ({"image": lambda s, o: o["picture"][:, [0, 1, 2, 2]]}, "picture[:, :3]"),
    "image: labels": ({"image": lambda s, o: o["picture"].repeat(1, 3, 1, 1)}, "LabelAdapter"),
    "image: channels last": ({"image": lambda s, o: o["picture"].permute(0, 2, 3, 1)}, "permute(0, 3, 1, 2)"),
    "image: a sequence": ({"image": lambda s, o: o["picture"][None]}, "picture[:, -1]"),
    "image: bytes": ({"image": lambda s, o: (o["picture"] * 255).byte()}, "divide a uint8 picture by 255"),
    "image: an array": ({"image": lambda s, o: o["picture"].numpy()}, "a value of type ndarray"),
    "image: two pictures": ({"image": lambda s, o: o["picture"].repeat(2, 1, 1, 1)}, "(1, 3, height, width)"),
    "image: nothing": ({"image": lambda s, o: None}, "image() returned None"),
    "image: a wrong key": ({"image": lambda s, o: o["rgb"]}, "image() failed with KeyError: 'rgb' (test_adapter_check"),
    "advance: nothing": ({"advance": lambda s, state, f, o: None}, "advance() returned None"),
    "advance: fails": ({"advance": lambda s, state, f, o: state[0]}, "advance() failed with TypeError"),
    "advance: unlike inputs": (
        {"advance": lambda s, state, f, o: 1, "inputs": lambda s, f, state: ((f,), {}) if state is None else f},
        "return (frame,), {}",
    ),
}


@pytest.mark.parametrize(("methods", "words"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize(
    "run",
    [
        lambda adapter: check_adapter(adapter, FRAME),
        lambda adapter: adapter.wrap(FRAME),
        lambda adapter: [shown for translate in [Translator(adapter)] for shown in map(translate, [BYTES] * 2)],
    ],
    ids=["check", "wrap", "translate"],
)
def test_wrong_returns_show_the_expected_form(
    methods: dict[str, Callable[..., Any]], words: str, run: Callable[[Adapter], Any]
) -> None:
    with pytest.raises(InputError) as caught:
        run(adapter_with(**methods))
    assert words in str(caught.value)


def test_an_adapter_that_never_runs_its_teacher_cannot_be_wrapped() -> None:
    adapter = adapter_with(opening=lambda self, frame, state: {"picture": frame})
    with pytest.raises(InputError, match="must return None once the teacher is to run"):
        adapter.wrap(FRAME)


def test_a_right_adapter_is_silent_and_leaves_the_teacher_as_it_was() -> None:
    adapter = adapter_with(
        start=lambda self: 0,
        inputs=lambda self, frame, state: ([frame * 1.0], {}),
        opening=lambda self, frame, state: {"picture": frame} if state < 3 else None,
        advance=lambda self, state, frame, output: state + 1,
    )
    torch.manual_seed(5)
    before = torch.get_rng_state()
    check_adapter(adapter, FRAME)
    assert adapter.teacher.calls == 0
    assert torch.equal(torch.get_rng_state(), before)


def test_a_plain_teacher_with_more_inputs_is_told_to_use_an_adapter() -> None:
    class Styled(nn.Module):
        def forward(self, x: Tensor, style: Tensor) -> Tensor:
            return x * style

    with pytest.raises(InputError, match="needs an adapter of its own.*adapter="):
        check_adapter(Adapter(Styled()), FRAME)
    with pytest.raises(InputError, match="override Adapter.image.. in an adapter of your own.*adapter="):
        check_adapter(Adapter(Net()), FRAME)


def noticed(adapter: Adapter, frame: Tensor = FRAME) -> list[str]:
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        check_adapter(adapter, frame)
    return [str(w.message) for w in record]


class Scaled(nn.Module):
    """Reads [0, 1] whatever it is given; writes another range."""

    def __init__(self, least: float, most: float) -> None:
        super().__init__()
        self.least, self.most = least, most

    def forward(self, x: Tensor) -> Tensor:
        x = (x - x.min()) / (x.max() - x.min())
        return x * (self.most - self.least) + self.least


@pytest.mark.parametrize("span", [(-1.0, 1.0), (0.0, 255.0), (-0.6, 0.9)])
def test_a_range_that_does_not_fit_is_named_with_the_adapter_that_does(span: tuple[float, float]) -> None:
    fitting = (0, 255) if span[1] > 2 else (-1, 1)
    (message,) = noticed(Adapter(Scaled(*span)))
    assert f"range={fitting}" in message
    assert not noticed(Adapter(Scaled(*span), range=fitting))


@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("opens", [0, 2])
def test_a_whole_video_is_checked_once_whichever_way_it_runs(lookahead: bool, opens: int) -> None:
    class Opens(Adapter):
        def opening(self, frame: Tensor, state: Any) -> Tensor | None:
            return None if float(frame.mean()) > 0.1 else frame

    layers = nn.Sequential(nn.Identity(), nn.Identity(), Scaled(-1, 1))
    clip = [BYTES * 0] * opens + [BYTES] * 5
    model = Opens(layers).wrap(FRAME, enc_layer="0", dec_layer="1")
    said = []
    for adapter in (Opens(layers), Opens(nn.Sequential(*layers))):
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            list(Translator(adapter, model, lookahead=lookahead).play(clip))
        said.append([str(w.message) for w in record if "outside [0, 1]" in str(w.message)])
    assert [len(messages) for messages in said] == [0, 1]  # wrap() has said it of the first


def test_own_adapters_are_asked_too() -> None:
    class Mine(Adapter):
        def image(self, output: Tensor) -> Tensor:
            return output

    (message,) = noticed(Mine(Scaled(-1, 1)))
    assert "Mine.image()" in message
    assert "(picture + 1) / 2" in message
    (message,) = noticed(Adapter(Scaled(-1, 3), range=(-1, 1)))
    assert "range=(-1, 1), which does not fit" in message


@pytest.mark.parametrize(("outside", "warns"), [(0.02, False), (0.2, True)])
def test_a_few_values_outside_are_no_matter(outside: float, warns: bool) -> None:
    picture = torch.full((1, 3, 10, 10), 0.5)
    picture.view(-1)[: int(outside * 300)] = 1.3
    assert bool(noticed(Adapter(nn.Identity()), picture)) is warns


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(value: float) -> None:
    picture = FRAME.clone()
    picture[..., :4] = value
    (message,) = noticed(Adapter(nn.Identity()), picture)
    assert "50% of it not finite" in message


class TestRange:
    @pytest.mark.parametrize("span", [(-1, 1), (0, 255), (-0.5, 0.5)])
    def test_there_and_back(self, span: tuple[float, float]) -> None:
        adapter = Adapter(nn.Identity(), range=span)
        (x,), _ = adapter.inputs(FRAME, None)
        assert (float(x.min()), float(x.max())) == span
        assert torch.allclose(adapter.image(x), FRAME, atol=1e-6)

    def test_equals_the_usual_formulas(self) -> None:
        adapter = Adapter(nn.Identity(), range=(-1, 1))
        assert torch.equal(adapter.inputs(FRAME, None)[0][0], FRAME * 2 - 1)
        assert torch.equal(adapter.image(FRAME), (FRAME + 1) / 2)

    def test_as_a_class_attribute_and_of_label_adapters(self) -> None:
        kind = type("Mine", (Adapter,), {"range": (-1, 1)})
        assert torch.equal(kind(nn.Identity()).inputs(FRAME, None)[0][0], FRAME * 2 - 1)
        adapter = LabelAdapter(nn.Identity(), writes=3, range=(-1, 1))
        assert torch.equal(adapter.inputs(FRAME, None)[0][0], FRAME * 2 - 1)

    @pytest.mark.parametrize("span", [(1, -1), (0, 0), (1,), (float("nan"), 1)])
    def test_what_is_no_range(self, span: Any) -> None:
        with pytest.raises(InputError, match="range="):
            Adapter(nn.Identity(), range=span)


def test_a_cut_is_needed_to_wrap_alone() -> None:
    layers = nn.Sequential(*(nn.Identity() for _ in range(4)))
    assert torch.equal(Translator(Adapter(layers))(BYTES), BYTES)
    with pytest.raises(CutError, match="names no cut.*shortcutv2v inspect"):
        Adapter(layers).wrap(FRAME)
    assert issubclass(CutError, ShortcutError)
    model = Adapter(layers).wrap(FRAME, enc_layer="0", dec_layer="2")
    assert torch.equal(model(FRAME), FRAME)
