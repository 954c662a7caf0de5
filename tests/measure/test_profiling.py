import json

import pytest
import torch
from torch import nn

import shortcutv2v
from shortcutv2v import measure
from shortcutv2v.errors import InputError
from shortcutv2v.measure import Candidate
from shortcutv2v.measure.advice import Times, advise
from shortcutv2v.measure.candidates import candidates, timed


@pytest.fixture
def model():
    torch.manual_seed(0)
    convs = [nn.Conv2d(3, 4, 3, padding=1), *(nn.Conv2d(4, 4, 3, padding=1) for _ in range(4)), nn.Conv2d(4, 3, 1)]
    teacher = nn.Sequential(*convs)
    return shortcutv2v.wrap(
        teacher, "0", "4", example_inputs=(torch.rand(1, 3, 8, 10),), max_interval=4, variant="paper"
    )


def test_profile_counts_every_part(model):
    model.blocks.train()
    model.blocks[0].reconstruct.eval()
    flags = [module.training for module in model.blocks.modules()]
    found = measure.profile(model, torch.rand(1, 3, 8, 10), runs=1)
    assert [module.training for module in model.blocks.modules()] == flags
    conv, middle = 80 * 4 * 27, 4 * 80 * 4 * 36
    macs = {row.name: row.cost.macs for row in found.rows}
    assert macs["head"] == conv
    assert macs["middle"] == middle
    assert macs["teacher frame"] == macs["head"] + macs["middle"] + macs["tail"]
    assert macs["reference frame"] == macs["teacher frame"] + macs["reference state"]
    assert macs["shortcut frame"] == macs["head"] + macs["block"] + macs["tail"]
    assert found.interval == 4
    assert found.macs_per_frame == (macs["reference frame"] + 3 * macs["shortcut frame"]) / 4
    assert found.bound == macs["teacher frame"] / found.macs_per_frame


def test_profile_prints_and_saves(model):
    found = measure.profile(model, (torch.rand(1, 3, 8, 10),), interval=2, runs=1)
    text = str(found)
    assert "frame of a video" in text
    assert found.advice[0] in text
    saved = json.loads(json.dumps(found.to_dict()))
    assert saved["interval"] == 2
    assert [row["name"] for row in saved["rows"]][:3] == ["teacher frame", "reference frame", "shortcut frame"]
    with pytest.raises(InputError, match="no row 'tial'"):
        found["tial"]


def test_profile_refuses_an_interval_of_zero(model):
    with pytest.raises(InputError, match="interval"):
        measure.profile(model, torch.rand(1, 3, 8, 10), interval=0)


def times(**changed):
    base = {"teacher": 10.0, "reference": 11.0, "shortcut": 9.9, "head": 1.0, "block": 7.9, "tail": 1.0}
    return Times(**(base | changed))


def cut(speedup, name="0"):
    return Candidate(name, "4", 2, bound=2.0, speedup=speedup)


def test_says_plainly_when_skipping_does_not_pay_and_what_would():
    narrow = (("channels / 2", 7.5), ("channels / 4", 2.0))
    verdict, shares, width, other = advise(times(narrow=narrow), 3, [cut(1.4), cut(1.2, "1")])
    assert verdict.startswith("SKIPPING DOES NOT PAY ON THIS DEVICE")
    assert "the block 80%" in shares
    assert "channels / 4 gives about 1.58x" in width
    assert "another cut would pay: enc_layer='0', dec_layer='4', channels=2 ran at 1.40x" in other


def test_says_when_nothing_helps():
    *_, width, other = advise(times(tail=8.0, block=0.9), 3, [cut(1.01)])
    assert "no width helps at this cut: head and tail alone take 90%" in width
    assert other.startswith("of the cuts that promise more none pays either")
    assert other.endswith("0 -> 4, h 2: 1.01x measured, multiply-adds allow 2.00x")
    *_, width, other = advise(times(narrow=(("channels / 2", 7.5),)), 3)
    assert width == "no measured width pays at this cut; a longer interval may"
    assert "no other cut was found" in other
    *_, width, _ = advise(times(narrow=(("channels / 2", 7.9),)), 3)
    assert width == "no measured width pays at this cut, at any interval"


def test_no_advice_where_it_pays():
    assert len(advise(times(shortcut=3.0, block=1.0), 3, [cut(2.0)])) == 2


def test_candidates_are_priced_with_their_blocks(model):
    frame = torch.rand(1, 3, 8, 10)
    (best,) = candidates(model, (frame,), {}, interval=4)
    assert (best.enc_layer, best.dec_layer) == ("0", "5")  # the present cut, 0 -> 4, is no candidate
    other = shortcutv2v.wrap(
        model.teacher, "0", "5", example_inputs=(frame,), channels=best.channels, variant="paper"
    ).eval()
    found = measure.macs(other, frame)
    assert best.bound == pytest.approx(found.teacher / found.amortised(4))
    assert best.speedup is None


def test_leaks_are_no_candidates_and_a_cut_to_the_end_may_be_narrow(model, unet):
    wide = nn.Sequential(*(nn.Conv2d(i, o, 3, padding=1) for i, o in ((3, 16), (16, 16), (16, 16), (16, 3))))
    frame = torch.rand(1, 3, 8, 10)
    narrow = shortcutv2v.wrap(wide, "0", "1", example_inputs=(frame,), channels=1, max_interval=9)
    found = candidates(narrow, (frame,), {}, 9)
    assert [(c.enc_layer, c.dec_layer, c.channels) for c in found] == [("0", "3", 1)]  # to the end: `f` may be narrow
    skips = shortcutv2v.wrap(unet.eval(), "down", "mid", example_inputs=(torch.rand(1, 3, 8, 8),), channels=1)
    for found in candidates(skips, (torch.rand(1, 3, 8, 8),), {}, 9):
        shortcutv2v.wrap(unet, found.enc_layer, found.dec_layer, example_inputs=(torch.rand(1, 3, 8, 8),))


def test_candidates_are_timed_in_one_run(model, monkeypatch):
    frame = torch.rand(1, 3, 8, 10)
    seconds = {"teacher": 8.0, "0 reference": 8.0, "0 shortcut": 2.0, "2 reference": 8.0, "2 shortcut": 0.0}

    def latency(work, **_):
        assert list(work) == list(seconds)
        for call in work.values():
            call()
        return {name: measure.Latency((value,)) for name, value in seconds.items()}

    monkeypatch.setattr("shortcutv2v.measure.candidates.latency", latency)
    found = [Candidate("0", "3", 2, 1.5), Candidate("4", "1", 2, 3.0), Candidate("1", "3", 2, 1.2)]  # 4 lies behind 1
    assert [(c.enc_layer, c.speedup) for c in timed(model, (frame,), {}, found, 2)] == [("1", 2.0), ("0", 1.6)]


def test_profile_tries_other_cuts_on_request(model):
    found = measure.profile(model, torch.rand(1, 3, 8, 10), runs=1, cuts=1)
    assert [(c.enc_layer, c.dec_layer) for c in found.cuts] == [("0", "5")]
    assert found.cuts[0].speedup > 0
    assert f"  {found.cuts[0]}" in str(found)
    assert found.to_dict()["cuts"][0]["bound"] == found.cuts[0].bound
    with pytest.raises(InputError, match="`cuts` at least 0"):
        measure.profile(model, torch.rand(1, 3, 8, 10), cuts=-1)


def test_profile_leaves_a_teacher_in_train_mode_as_found(unet):
    frame = torch.rand(1, 3, 8, 8)
    model = shortcutv2v.wrap(unet.train(), "first", "up", example_inputs=(frame,))
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    found = measure.profile(model, frame, runs=1, cuts=0)
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())
    assert unet.norm.training
    assert "train mode" in found.advice[-1]


def test_profile_takes_a_wrapped_teacher(chain):
    with pytest.raises(InputError, match="`model` is Chain, but must be what shortcutv2v.wrap"):
        measure.profile(chain, torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize(("scale", "shown"), [(1, ("2.000", "M multiply-adds")), (1000, ("2.000", "G multiply-adds"))])
def test_tiny_teachers_are_not_all_zeros(scale, shown):
    cost, quick = measure.Cost(2_000_000 * scale, 3000 * scale), measure.Latency((0.0015,))
    frames = ("teacher frame", "reference frame", "shortcut frame")
    text = str(measure.Profile(tuple(measure.Row(name, cost, quick) for name in frames), 3, "CPU", ()))
    assert all(word in text for word in (*shown, "3.000", " 1.50 "))


def test_unsteady_times_are_named(model, monkeypatch):
    unsteady = measure.Latency((1.0, 1.0, 9.0, 9.0))
    monkeypatch.setattr("shortcutv2v.measure.profiling.latency", lambda work, **_: dict.fromkeys(work, unsteady))
    assert any("TAKE THE TIMES WITH CARE" in line for line in measure.profile(model, torch.rand(1, 3, 8, 10)).advice)


@pytest.mark.parametrize("teacher", [0.001, 0.1])
def test_a_tiny_frame_is_no_measure(model, monkeypatch, teacher):
    def latency(work, **_):
        return {name: measure.Latency((teacher * (1 if name == "teacher frame" else 2),)) for name in work}

    monkeypatch.setattr("shortcutv2v.measure.profiling.latency", latency)
    found = measure.profile(model, torch.rand(1, 3, 8, 10), cuts=0)
    assert any("profile the size that you will run" in line for line in found.advice) == (teacher < 0.01)
