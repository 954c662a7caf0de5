from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from examples._checkpoints import load_into, read_state
from examples.unsup.checkpoint import load_teacher as load_unsup
from examples.unsup.teacher import build_teacher as build_unsup
from examples.vid2vid.checkpoint import infer_config as infer_vid2vid
from examples.vid2vid.checkpoint import load_teacher as load_vid2vid
from examples.vid2vid.teacher import build_teacher as build_vid2vid
from examples.vtoonify.checkpoint import infer_config as infer_vtoonify
from examples.vtoonify.checkpoint import load_teacher as load_vtoonify
from examples.vtoonify.teacher import build_teacher as build_vtoonify
from torch import Tensor, nn

from shortcutv2v.errors import CheckpointError

UNSUP = {"ngf": 4, "n_blocks": 2}


def _state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build_unsup(UNSUP).state_dict()


def _same(net: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        lambda state: {"g_ema": state},
        lambda state: {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {"g": {"x": torch.zeros(1)}, "g_ema": state, "latent_avg": torch.zeros(1)},
        lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
        lambda state: {**state, "decoder.0.weight": torch.zeros(3)},
        lambda state: {**state, "model.2.running_mean": torch.zeros(4), "model.2.num_batches_tracked": torch.zeros(())},
    ],
    ids=["bare", "g_ema", "state_dict, module.", "g beside g_ema", "two prefixes", "decoder", "old instance norm"],
)
def test_wrappers_prefixes_and_leftovers_are_understood(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    state = _state()
    torch.save(wrap(state), tmp_path / "net.pth")
    assert _same(load_unsup(tmp_path / "net.pth"), state)


def test_old_format_and_safetensors(tmp_path: Path) -> None:
    state = _state()
    torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "net.safetensors")
    for name in ("net.pth", "net.safetensors"):
        assert _same(load_unsup(str(tmp_path / name)), state)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    state = {key: value.half() for key, value in _state().items()}
    torch.save(state, tmp_path / "net.pth")
    net = load_unsup(tmp_path / "net.pth")
    assert {value.dtype for value in net.state_dict().values()} == {torch.float32}
    assert _same(net, {key: value.float() for key, value in state.items()})


def test_counters_of_batch_norm_may_be_missing(tmp_path: Path) -> None:
    net = build_vid2vid({"input_nc": 2, "prev_output_nc": 3, "ngf": 2, "n_blocks": 2})
    state = {key: value for key, value in net.state_dict().items() if "num_batches_tracked" not in key}
    torch.save(state, tmp_path / "net.pth")
    loaded = load_vid2vid(tmp_path / "net.pth", {"use_raw_only": True})
    assert loaded.use_raw_only
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in state.items())


def test_averages_of_batch_norm_may_not_be_missing() -> None:
    net = build_vid2vid({"input_nc": 2, "prev_output_nc": 3, "ngf": 2, "n_blocks": 2})
    state = {key: value for key, value in net.state_dict().items() if key != "model_down_seg.2.running_var"}
    with pytest.raises(CheckpointError, match=r"missing: model_down_seg\.2\.running_var \(2,\)"):
        load_into(net, state)


def test_another_width_is_named_by_key_and_shape_with_the_configuration_that_fits(tmp_path: Path) -> None:
    torch.save(_state(), tmp_path / "net.pth")
    before = build_unsup({"ngf": 8, "n_blocks": 2})
    with pytest.raises(CheckpointError) as caught:
        load_unsup(tmp_path / "net.pth", {"ngf": 8, "n_blocks": 2})
    message = str(caught.value)
    assert "model.1.weight is (4, 3, 7, 7) in the file, (8, 3, 7, 7) in the network" in message
    assert "and 13 more" in message
    assert "build_teacher({'input_nc': 3, 'output_nc': 3, 'ngf': 4, 'n_blocks': 2, 'use_dropout': False})" in message
    kept = {key: value.clone() for key, value in before.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_into(before, _state())
    assert _same(before, kept)  # nothing was copied


def test_another_dropout_layout_is_named(tmp_path: Path) -> None:
    torch.save(_state(), tmp_path / "net.pth")
    with pytest.raises(CheckpointError) as caught:
        load_unsup(tmp_path / "net.pth", {**UNSUP, "use_dropout": True})
    message = str(caught.value)
    assert "missing: model.10.conv_block.6.weight (16, 16, 3, 3)" in message
    assert "not in the network: model.10.conv_block.5.weight (16, 16, 3, 3)" in message
    assert "'use_dropout': False" in message


class _Unwanted:
    pass


def test_a_pickle_that_needs_more_is_refused_with_advice(tmp_path: Path) -> None:
    torch.save({"state_dict": _state(), "options": _Unwanted()}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"can run any code[\s\S]*weights_only=False"):
        read_state(tmp_path / "net.pth")


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        read_state(tmp_path / "absent.pth")
    whole = tmp_path / "net.pth"
    torch.save(_state(), whole)
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"cut\.pth"):
        read_state(cut)
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_state(tmp_path / "text.safetensors")
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "empty.pth")
    with pytest.raises(CheckpointError, match="its keys: epoch, optimizer"):
        read_state(tmp_path / "empty.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="no weights found"):
        read_state(tmp_path / "list.pth")


@pytest.mark.parametrize("load", [load_unsup, load_vid2vid, load_vtoonify])
def test_another_network_altogether(load: Callable[[Path], nn.Module], tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="holds no"):
        load(tmp_path / "net.pth")


@pytest.mark.parametrize(
    "config",
    [
        {"input_nc": 4, "prev_output_nc": 3, "ngf": 4, "n_downsampling": 2, "n_blocks": 3, "fg": True, "no_flow": True},
        {"input_nc": 4, "prev_output_nc": 6, "ngf": 2, "n_downsampling": 3, "n_blocks": 9, "norm": "instance"},
        {"input_nc": 3, "output_nc": 5, "ngf": 2, "n_downsampling": 4},
        {"input_nc": 3, "nz": 2, "ngf": 4, "n_downsampling": 2, "n_blocks": 2},
        {"input_nc": 3, "output_nc": 2, "ngf": 4, "n_downsampling": 2, "n_blocks": 1},
    ],
    ids=["foreground", "instance norm", "encoder", "with features", "global"],
)
def test_vid2vid_configurations_are_read_off_the_file(config: dict[str, Any], tmp_path: Path) -> None:
    net = build_vid2vid(config)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    loaded = load_vid2vid(tmp_path / "net.pth")
    assert type(loaded) is type(net)
    assert _same(loaded, net.state_dict())
    found = infer_vid2vid(net.state_dict())
    assert found is not None
    assert {key: found[key] for key in config} == config


@pytest.mark.parametrize("backbone", ["toonify", "dualstylegan"])
def test_vtoonify_configurations_are_read_off_the_file(backbone: str, tmp_path: Path) -> None:
    config = {"backbone": backbone, "in_size": 64, "out_size": 128, "style_channels": 4, "num_mlps": 7}
    config |= {"num_res_layers": 3, "generator_channels": {4: 6, 8: 6, 16: 6, 32: 6, 64: 5, 128: 4}}
    net = build_vtoonify(config)
    # Filters and noise may be missing: the former are always the same, the latter is multiplied by 0.
    state = {key: value for key, value in net.state_dict().items() if ".kernel" not in key and "noises" not in key}
    torch.save({"g_ema": state}, tmp_path / "net.pt")
    loaded = load_vtoonify(tmp_path / "net.pt")
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in state.items())
    found = infer_vtoonify(state)
    assert found is not None
    assert {key: found[key] for key in config} == config


def test_files_of_the_encoder_pretraining_are_refused(tmp_path: Path) -> None:
    net = build_vtoonify({"backbone": "toonify", "in_size": 32, "out_size": 64, "style_channels": 4})
    torch.save({"g_ema": net.encoder.state_dict()}, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="encoder alone"):
        load_vtoonify(tmp_path / "net.pt")
