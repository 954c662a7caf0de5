"""Third-party networks, wrapped: what the README promises, on networks nobody wrote for us."""

from __future__ import annotations

import re
import time
import warnings
from typing import Any

import pytest
import torch
from tests.zoo.zoo_cases import CASES, Case
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from shortcutv2v import errors, graph
from shortcutv2v.graph.structure import flatten

Score = dict[str, dict[str, Any]]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def same(left: Any, right: Any) -> bool:
    pairs = list(zip(flatten(left)[0], flatten(right)[0], strict=True))
    return bool(pairs) and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in pairs)


def copied(value: Any) -> Any:
    return pytree.tree_map_only(Tensor, torch.clone, value)


def run(net: nn.Module, given: Any) -> Any:
    """The teacher on copies of its inputs, under a fixed seed, left as found."""
    args, kwargs = copied(given)
    with graph.untouched(net):
        torch.manual_seed(0)
        return copied_output(net(*args, **kwargs))


def copied_output(value: Any) -> Any:
    leaves, structure = flatten(value)
    return structure.rebuild([t.clone() for t in leaves])


def state(net: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {k: v.clone() for k, v in net.state_dict().items() if isinstance(v, Tensor)}
    for name, module in net.named_modules():
        found[f"{name}:flags"] = (module.training, len(module._forward_hooks), sorted(vars(module)))
    return found


def unchanged(net: nn.Module, before: dict[str, Any]) -> bool:
    now = state(net)
    return before.keys() == now.keys() and all(
        torch.equal(v, now[k]) if isinstance(v, Tensor) else v == now[k] for k, v in before.items()
    )


def choose(net: nn.Module, case: Case, given: Any) -> tuple[str, str]:
    """The cut to try: the case's own, or the best leak-free one that leaves something outside the middle."""
    if case.cut is not None:
        return case.cut
    found = [s for s in graph.suggest_cuts(net, *given) if not s.leaks]
    usual = [s for s in found if 0.2 <= s.saved <= 0.95]
    assert found, "no cut is suggested"
    best = (usual or found)[0]
    return best.enc_layer, best.dec_layer


def check_exact(net: nn.Module, cap: graph.Capture, given: Any) -> None:
    """Split with the true f equals the teacher, on a carry used twice, and changes nothing that it is given."""
    want = run(net, given)
    args, kwargs = copied(given)
    with graph.untouched(net):
        torch.manual_seed(0)
        split = cap.at(args, kwargs)
        carry = split.head(*args, **kwargs)
        held = copied(carry)
        f = split.middle(carry)
        assert same(split.tail(carry, f), want)
        assert same(split.tail(carry, f), want)
        assert type(split.tail(carry, f)) is type(want)
    assert same(carry, held)
    assert same((args, kwargs), given)


def check_poisoned(net: nn.Module, cap: graph.Capture, given: Any) -> None:
    """With NaN in the weights of the middle a shortcut pass is what it was."""
    split = cap.at(*given)
    weights = dict(net.named_parameters(remove_duplicate=False))
    names = [n for n in split.facts.middle_only if weights[n].is_floating_point()]
    with graph.untouched(net):
        want = split.tail(c := split.head(*given[0], **given[1]), f := split.middle(c))
    saved = {n: weights[n].clone() for n in names}
    for n in names:
        weights[n].fill_(torch.nan)
    with graph.untouched(net):
        out = split.tail(split.head(*given[0], **given[1]), f)
    for n in names:
        weights[n].copy_(saved[n])
    assert same(out, want)


def check_refusals(net: nn.Module, case: Case, enc: str, dec: str, given: Any) -> None:
    """Wrong cuts are refused in words that help."""
    with pytest.raises(errors.UnknownLayerError, match="Did you mean|outermost"):
        graph.parse_cut(net, enc + "x", dec)
    cut = graph.parse_cut(net, dec, enc, case.layout)
    with pytest.raises(errors.CutOrderError, match="swapped"):
        graph.Capture(net, cut, *given)
    with pytest.raises(errors.CutError, match=re.escape(dec)):
        graph.Capture(net, graph.parse_cut(net, dec, dec, case.layout), *given)


def name_of(case: Case) -> str:
    return f"{case.package}-{case.name}".replace(" ", "_")


CUTS: dict[str, tuple[str, str]] = {}


@torch.no_grad()
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_zoo(case: Case, score: Score) -> None:
    pytest.importorskip(case.package)
    row = score.setdefault(name_of(case), {"package": case.package, "name": case.name, "result": "FAILED"})
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = case.build().train(case.train)
        given = case.inputs(*case.sizes[0])
        run(net, given)
        before = state(net)
        enc, dec = CUTS[name_of(case)] = choose(net, case, given)
        cap = graph.Capture(net, graph.parse_cut(net, enc, dec, case.layout), *given)
        facts = cap.at(*given).facts
        row |= {"cut": f"`{enc}` -> `{dec}`", "share": facts.share_of_macs, "strategy": facts.strategy}
        check_exact(net, cap, given)
        check_exact(net, cap, case.inputs(*case.sizes[0]))
        check_poisoned(net, cap, given)
        check_exact(net, cap, case.inputs(*case.sizes[1]))
        check_refusals(net, case, enc, dec, given)
    assert unchanged(net, before)
    row["result"] = "exact"


@torch.no_grad()
@pytest.mark.parametrize("strategy", ["fx", "export", "hooks"])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_each_strategy_alone(case: Case, strategy: str, score: Score) -> None:
    """Forced, a strategy is exact or refuses; what each can do goes into the score."""
    if name_of(case) not in CUTS:
        pytest.skip("runs after test_zoo, with the cut found there")
    torch.manual_seed(0)
    net = case.build().train(case.train)
    given = case.inputs(*case.sizes[0])
    run(net, given)
    cut = graph.parse_cut(net, *CUTS[name_of(case)], case.layout)
    start = time.perf_counter()
    try:
        cap = graph.Capture(net, cut, *given, capture=strategy)
    except errors.ShortcutError:  # of any kind: hooks see whole modules only, and take more features for leaks
        score[name_of(case)][strategy] = "refused"
        return
    seconds = time.perf_counter() - start
    check_exact(net, cap, case.inputs(*case.sizes[0]))
    check_poisoned(net, cap, given)
    score[name_of(case)][strategy] = seconds
