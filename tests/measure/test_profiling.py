import json

import pytest
import torch
from torch import nn

import shortcutv2v
from shortcutv2v import measure
from shortcutv2v.errors import InputError
from shortcutv2v.measure.advice import Times, advise


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


def test_says_plainly_when_skipping_does_not_pay_and_which_width_would():
    verdict, shares, hint = advise(times(narrow=(("channels / 2", 7.5), ("channels / 4", 2.0))), 3)
    assert verdict.startswith("SKIPPING DOES NOT PAY ON THIS DEVICE")
    assert "the block 80%" in shares
    assert "channels / 4 gives about 1.58x" in hint


def test_says_when_only_another_cut_helps():
    assert "no width helps: head and tail alone take 90%" in advise(times(tail=8.0, block=0.9), 3)[2]
    assert "no measured width pays" in advise(times(narrow=(("channels / 2", 7.5),)), 3)[2]


def test_no_advice_where_it_pays():
    assert len(advise(times(shortcut=3.0, block=1.0), 3)) == 2
