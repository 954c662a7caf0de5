"""Every trap met in the survey, and that no strategy falls into it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from tests.graph import trap_teachers as traps
from torch import Tensor, nn

from shortcutv2v import errors, graph

X = torch.rand(2, 3, 16, 24)
# torch.jit is on its way out, and teachers that use it are not.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")


def tensors(value: Any) -> list[Tensor]:
    from shortcutv2v.graph.structure import flatten

    return flatten(value)[0]


def same(left: Any, right: Any) -> bool:
    pairs = list(zip(tensors(left), tensors(right), strict=True))
    return bool(pairs) and all(torch.equal(x, y) for x, y in pairs)


def state(net: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {k: v.clone() for k, v in net.state_dict().items()}
    for name, module in net.named_modules():
        found.update((f"{name}.{k}", repr(v)) for k, v in vars(module).items() if k not in ("_parameters", "_buffers"))
    return found


def equal_states(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(v, right[k]) if isinstance(v, Tensor) else v == right[k] for k, v in left.items()
    )


@torch.no_grad()
def check(
    net: nn.Module, enc: Any = "enc", dec: Any = "dec", args: Any = (X,), kwargs: Any = None, layout: str | None = None,
    **options: Any,
) -> graph.Split:  # fmt: skip
    """Capture, compare with the teacher on fresh inputs, poison the middle."""
    kwargs = kwargs or {}
    before = state(net)
    rng = torch.get_rng_state()
    cap = graph.Capture(net, graph.parse_cut(net, enc, dec, layout), args, kwargs, **options)
    assert torch.equal(rng, torch.get_rng_state())
    assert equal_states(before, state(net))
    split = cap.at(args, kwargs)
    for factor in (1.0, 0.7):
        given = torch.utils._pytree.tree_map_only(Tensor, lambda t, k=factor: t * k, (args, kwargs))
        copy = torch.utils._pytree.tree_map_only(Tensor, torch.clone, given)
        with graph.untouched(net):
            want = net(*copy[0], **copy[1])
        copy = torch.utils._pytree.tree_map_only(Tensor, torch.clone, given)
        with graph.untouched(net):
            carry = split.head(*copy[0], **copy[1])
            f = split.middle(carry)
            assert same(split.tail(carry, f), want)
            assert same(split.tail(carry, f), want)
            assert type(split.tail(carry, f)) is type(want)
        assert same(copy, given)
    numbers = dict(net.named_parameters())
    assert split.facts.middle_only
    for name in split.facts.middle_only:
        numbers[name].fill_(torch.nan)
    with graph.untouched(net):
        assert same(split.tail(split.head(*copy[0], **copy[1]), f), want)
    return split


PLAIN = [
    traps.Base, traps.StoresFeatures, traps.InPlaceAfterCuts, traps.InPlaceModules, traps.PadsToEight, traps.Contexts,
    traps.WithScript, traps.RawParameters, traps.Checkpointed, traps.Identities,
]  # fmt: skip


@pytest.mark.parametrize("net", PLAIN, ids=lambda c: c.__name__)
def test_fx_takes_it(net: type[nn.Module]) -> None:
    torch.manual_seed(0)
    assert check(net().eval(), *ends(net)).strategy == "fx"


@pytest.mark.parametrize("net", [n for n in PLAIN if n is not traps.WithScript], ids=lambda c: c.__name__)
def test_export_takes_it(net: type[nn.Module]) -> None:
    torch.manual_seed(0)
    assert check(net().eval(), *ends(net), capture="export").strategy == "export"


@pytest.mark.parametrize("net", [n for n in PLAIN if n is not traps.RawParameters], ids=lambda c: c.__name__)
def test_hooks_take_it(net: type[nn.Module]) -> None:
    torch.manual_seed(0)
    assert check(net().eval(), *ends(net), capture="hooks").strategy == "hooks"


def ends(net: type[nn.Module]) -> tuple[str, str]:
    return ("start", "end") if net is traps.Identities else ("enc", "dec")


@pytest.mark.parametrize(
    "net", [traps.InPlaceOnViews, traps.TupleLeaf, traps.ShapeOnly, traps.DirectForward, traps.ChangesList],
    ids=lambda c: c.__name__,
)  # fmt: skip
def test_a_closer_look_finds_no_leak(net: type[nn.Module]) -> None:
    torch.manual_seed(0)
    split = check(net().eval())
    assert split.facts.leaks == ()


@pytest.mark.parametrize("net", [traps.Decides, traps.Numpy], ids=lambda c: c.__name__)
def test_code_that_depends_on_values_is_left_to_hooks(net: type[nn.Module]) -> None:
    torch.manual_seed(0)
    split = check(net().eval())
    assert split.strategy == "hooks"
    assert [name for name, _ in split.facts.passed_over] == ["fx", "export"]
    assert "values" in split.facts.passed_over[0][1]


def test_the_head_leaves_the_deep_features_of_an_encoder_to_the_middle() -> None:
    net = traps.ListEncoder().eval()
    split = check(net)
    assert {"encoder.stages.1.weight", "encoder.stages.2.weight", "mid.weight"} <= set(split.facts.middle_only)


def test_a_cut_inside_its_own_end() -> None:
    for capture in ("fx", "export", "hooks"):
        assert check(traps.Nested().eval(), "body.enc", "body", capture=capture).strategy == capture


@pytest.mark.parametrize("capture", ["fx", "export", "hooks"])
def test_structures_go_in_and_come_out(capture: str) -> None:
    net = traps.Structured().eval()
    split = check(net, args=({"frame": X, "id": 7},), kwargs={"scale": 0.5}, capture=capture)
    out = split.tail(c := split.head({"frame": X, "id": 7}, scale=0.5), split.middle(c))
    assert isinstance(out, traps.Output)
    assert (out.depth, out.more[1], out.more[0]["none"], out.more[0]["opaque"].name) == (3, "text", None, "opaque")
    assert isinstance(out.more[0]["pair"], traps.Pair)


@pytest.mark.parametrize("capture", ["fx", "export", "hooks"])
def test_several_encoders_and_branches(capture: str) -> None:
    net = traps.Flow().eval()
    split = check(net, [("enc", "enc2"), ("enc", "enc2")], ["dec", "rgb"], args=(X, X * 0.5), capture=capture)
    assert split.maps.a_shapes == ((2, 8, 16, 24),) * 2
    assert split.maps.f_shapes == ((2, 4, 16, 24), (2, 3, 16, 24))


@pytest.mark.parametrize("capture", ["fx", "hooks"])
def test_tokens_become_maps(capture: str) -> None:
    torch.manual_seed(0)
    net = traps.Tokens().eval()
    split = check(net, "blocks.0", "blocks.2", layout="b (h w) c -> b c h w", capture=capture)
    assert split.maps.a_shapes == ((2, 8, 4, 6),)


def test_tokens_without_layout_are_refused_with_advice() -> None:
    with pytest.raises(errors.OutputTypeError, match=re.escape('layout="b (h w) c -> b c h w"')):
        check(traps.Tokens().eval(), "blocks.0", "blocks.2")


def test_calls_are_numbered_and_aliases_known() -> None:
    net = traps.Twice().eval()
    with pytest.raises(errors.AmbiguousCallError, match="'mid:0' is the first, 'mid:1' the last"):
        check(net, "mid", "dec")
    with pytest.raises(errors.AmbiguousCallError, match="'mid:2' does not exist"):
        check(net, "mid:2", "dec")
    for capture in ("fx", "export", "hooks"):
        check(traps.Twice().eval(), "enc", "same", capture=capture)
    with pytest.raises(AssertionError, match="middle_only"):
        # Its weights serve the head as well, so none is the middle's own; everything before that held.
        check(net, "mid:0", "mid:1")


@pytest.mark.parametrize("capture", ["fx", "hooks"])
def test_batch_statistics_are_the_users(capture: str) -> None:
    torch.manual_seed(0)
    assert check(traps.TrainMode().train(), capture=capture).strategy == capture


def test_export_refuses_to_lose_running_statistics() -> None:
    with pytest.raises(errors.CaptureError, match="running_mean"):
        check(traps.TrainMode().train(), capture="export")


@pytest.mark.parametrize("net", [lambda: traps.TrainMode(0.5), traps.Noise])
def test_what_draws_random_numbers_is_said(net: Any) -> None:
    torch.manual_seed(0)
    teacher = net().train()
    cut = graph.parse_cut(teacher, "enc", "dec")
    facts = graph.Capture(teacher, cut, (X,)).at((X,)).facts
    assert facts.random
    assert "not deterministic" in "\n".join(facts.lines())


@pytest.mark.parametrize(
    ("net", "hint"), [(traps.PythonNoise, "changes from call to call"), (traps.Remembers, "previous")]
)
def test_impure_teachers_are_refused(net: type[nn.Module], hint: str) -> None:
    teacher = net().eval()
    before = state(teacher)
    with pytest.raises(errors.CaptureError, match=hint):
        check(teacher)
    assert equal_states(before, state(teacher))


def test_a_failing_teacher_is_reported_and_left_as_found() -> None:
    net = traps.FailsAfterStoring().eval()
    before = state(net)
    with pytest.raises(errors.InputError, match="ArithmeticError: on purpose"):
        check(net)
    assert equal_states(before, state(net))


def test_user_hooks_fire_on_containers_too() -> None:
    net = traps.Nested().eval()
    fired: list[str] = []
    net.register_forward_hook(lambda *_: fired.append("net"))
    net.body.register_forward_hook(lambda *_: fired.append("body"))
    net.body.enc.register_forward_pre_hook(lambda *_: fired.append("enc"))
    net.body.register_forward_pre_hook(lambda _, args: (args[0] * 2,))
    cap = graph.Capture(net, graph.parse_cut(net, "body.enc", "body.last"), (X,))
    split = cap.at((X,))
    fired.clear()
    carry = split.head(X)
    assert fired == ["enc"]
    f = split.middle(carry)
    out = split.tail(carry, f)
    assert sorted(fired) == ["body", "enc", "net"]
    assert torch.equal(out, net(X))


def test_export_keeps_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(errors.CaptureError, match=r"torch\.export stopped with"):
        check(traps.Decides().eval(), capture="export")
    assert capfd.readouterr() == ("", "")


@torch.no_grad()
def test_other_dtype_and_training_flags_are_captured_anew() -> None:
    net = traps.TrainMode().eval()
    cap = graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,))
    net.train()
    with graph.untouched(net):
        want = net(X)
    with graph.untouched(net):
        carry = cap.at((X,)).head(X)
        assert torch.equal(cap.of(carry).tail(carry, cap.of(carry).middle(carry)), want)
    net.eval().double()
    double = X.double()
    carry = cap.at((double,)).head(double)
    assert torch.equal(cap.of(carry).tail(carry, cap.of(carry).middle(carry)), net(double))


def test_gradients_flow_to_f() -> None:
    net = traps.Base().eval()
    split = graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,)).at((X,))
    carry = split.head(X)
    f = [t.detach().requires_grad_() for t in split.middle(carry)]
    split.tail(carry, f).sum().backward()
    assert f[0].grad is not None
    assert f[0].grad.abs().sum() > 0


def test_numpy_inputs_are_refused() -> None:
    with pytest.raises(errors.InputError, match="numpy"):
        check(traps.Base(), args=(X.numpy(),))
