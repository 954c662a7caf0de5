"""A run that is killed at any step and resumed ends as the run that was not."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v.distill import Distiller, LossWeights, fit, trainer
from shortcutv2v.distill.trainer import AtomicCheckpointIO
from shortcutv2v.errors import CheckpointError
from shortcutv2v.fingerprint import fingerprint

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs to kill are forked"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def clip() -> Tensor:
    return torch.randint(0, 256, (8, 3, 12, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Noisy(nn.Sequential):
    """A teacher that draws: its randomness is part of what has to be resumed."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        layers = [nn.Conv2d(3 if i == 0 else 6, 3 if i == 5 else 6, 3, padding=1) for i in range(6)]
        super().__init__(*layers[:3], nn.Dropout(0.3), *layers[3:])


def train(folder: Path, resume: Path | None = None, **settings: Any) -> dict[str, Any]:
    """Twelve steps with everything that has a state; the last checkpoint."""
    model = shortcutv2v.wrap(Noisy(), "1", "4", example_inputs=(torch.rand(1, 3, 8, 8),), channels=4)
    torch.manual_seed(1)
    for block in model.blocks:
        for weight in block.parameters():
            nn.init.normal_(weight, std=0.1)
    always: dict[str, Any] = {"minutes": None, "max_steps": 12, "crop": 8, "batch_size": 2, "lr": 1e-2, "ema": 0.7}
    always |= {"weights": LossWeights(perceptual=0), "save_every": 3, "progress": False}
    fit(model, clip(), folder=folder, resume=resume, **always | settings)
    model.save(folder)
    return torch.load(folder / "last.ckpt", weights_only=True)


def in_a_process(work: Callable[[], None]) -> int:
    """Exit code of a forked process that does `work`; minus the signal that ended it."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillAt(pl.Callback):
    """SIGKILL in the middle of a step: the gradients are there, the optimiser has not run."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == self.step:
            kill()


def tensors(checkpoint: Any, path: str = "") -> dict[str, Any]:
    """Every value in a nest of dictionaries and lists, by its path."""
    if isinstance(checkpoint, dict):
        items = list(checkpoint.items())
    elif isinstance(checkpoint, list | tuple):
        items = list(enumerate(checkpoint))
    else:
        return {path: checkpoint}
    return {name: leaf for key, value in items for name, leaf in tensors(value, f"{path}/{key}").items()}


@pytest.mark.forks
def test_killed_and_resumed_run_equals_the_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, last = tmp_path / "killed", tmp_path / "killed" / "last.ckpt"
    watch = trainer.callbacks_of
    for step in (4, 8, 11):
        monkeypatch.setattr(trainer, "callbacks_of", lambda *a, step=step, **k: [*watch(*a, **k), KillAt(step)])
        assert in_a_process(lambda: train(found, last if last.exists() else None)) == -signal.SIGKILL
        assert torch.load(last, weights_only=True)["global_step"] == step // 3 * 3
    monkeypatch.setattr(trainer, "callbacks_of", watch)
    whole, resumed = train(tmp_path / "whole"), train(found, last)  # last: gradients may leave threads, see `forks`
    for part in ("state_dict", "optimizer_states", "ema", "global_step"):
        expected, got = tensors(whole[part]), tensors(resumed[part])
        assert expected.keys() == got.keys()
        for name, value in expected.items():
            assert torch.equal(value, got[name]) if isinstance(value, Tensor) else value == got[name], (part, name)
    assert any(name.startswith("adversary.") for name in whole["state_dict"])


def test_a_kill_while_saving_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"step": torch.tensor(1)}, tmp_path / "last.ckpt")
    monkeypatch.setattr(os, "fsync", lambda file: kill())
    assert in_a_process(lambda: writer.save_checkpoint({"step": 2}, tmp_path / "last.ckpt")) == -signal.SIGKILL
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["step"] == 1
    monkeypatch.undo()
    writer.save_checkpoint({"step": torch.tensor(3)}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["step"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_new_run_in_an_old_folder_replaces_its_checkpoint(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.warns(UserWarning, match="of an earlier run will be replaced"):
        train(tmp_path)
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["last.ckpt"]


def test_nothing_left_to_train_is_said(tmp_path: Path) -> None:
    before = train(tmp_path)
    steps = before["global_step"]
    with pytest.warns(UserWarning, match=f"is at step {steps}, the run ends at step {steps}: nothing is left"):
        again = train(tmp_path, resume=tmp_path / "last.ckpt")
    averages = {name: value for name, value in before["state_dict"].items() if name.startswith("model.")}
    assert all(torch.equal(value, again["state_dict"][name]) for name, value in averages.items())
    saved = load_file(tmp_path / "block.safetensors")  # what the model holds: not the weights in training
    assert all(torch.equal(value, saved[name.removeprefix("model.blocks.")]) for name, value in averages.items())


@pytest.mark.parametrize("content", [b"hello", b"", {"a": 1}, [1, 2]])
def test_other_files_are_no_checkpoints(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"x.ckpt is .*expected a last.ckpt written by"):
        train(tmp_path, resume=path)


def test_discriminators_must_be_those_of_the_checkpoint(tmp_path: Path) -> None:
    train(tmp_path, weights=LossWeights.plain())
    with pytest.raises(CheckpointError, match=r"the checkpoint has no discriminators: resume with"):
        train(tmp_path, max_steps=13, resume=tmp_path / "last.ckpt")


def test_what_a_resumed_run_does_otherwise_is_said(tmp_path: Path) -> None:
    train(tmp_path)
    rate = pytest.warns(UserWarning, match="the resumed run keeps its learning rate of the blocks, 0.01")
    with rate, pytest.warns(UserWarning, match="the checkpoint holds averages"):
        train(tmp_path, max_steps=13, resume=tmp_path / "last.ckpt", lr=0.5, ema=None)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"step": torch.tensor(1)}, tmp_path / "last.ckpt")

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*last.ckpt: .*No space left.*the one before is still"):
        writer.save_checkpoint({"step": torch.tensor(2)}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


class Interrupted(Distiller):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.trainer.global_step == 3:
            raise KeyboardInterrupt
        return super().training_step(batch, batch_idx)


def test_control_c_names_the_checkpoint_and_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted at step 3: resume from .*last.ckpt"):
        train(tmp_path, distiller=Interrupted, save_every=2)
    assert signal.getsignal(signal.SIGINT) is before
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


class InterruptedAtTheEnd(Distiller):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        raise KeyboardInterrupt


def test_control_c_in_the_last_validation_names_the_last_checkpoint(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted at step 4: resume from .*last.ckpt"):
        train(tmp_path, distiller=InterruptedAtTheEnd, validation=clip(), max_steps=4, save_every=100)
    assert signal.getsignal(signal.SIGINT) is before
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 4


def damaged(checkpoint: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Copies of a checkpoint, each with an entry missing or of another kind, on the two upper levels."""
    for key, value in checkpoint.items():
        yield f"no {key}", {k: v for k, v in checkpoint.items() if k != key}
        for odd in (None, [], "x"):
            yield f"{key} = {odd}", checkpoint | {key: odd}
        for inner in list(value)[:3] + list(value)[-2:] if isinstance(value, dict) else ():
            yield f"no {key}.{inner}", checkpoint | {key: {k: v for k, v in value.items() if k != inner}}


@pytest.mark.slow  # half a minute: a run is begun for each
def test_checkpoints_with_missing_or_odd_entries(tmp_path: Path) -> None:
    """A sentence, or a run that goes on; never another error."""
    whole = train(tmp_path, max_steps=3)
    path, refused = tmp_path / "odd.ckpt", 0
    for what, odd in damaged(whole):
        torch.save(odd, path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                train(tmp_path, max_steps=4, resume=path)
            except shortcutv2v.ShortcutError:
                refused += 1
            except Exception as error:
                raise AssertionError(what) from error
    assert refused > 30


def test_a_checkpoint_of_weights_alone_is_told(tmp_path: Path) -> None:
    whole = train(tmp_path, max_steps=3)
    kept = ("epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "shortcutv2v")
    torch.save({key: whole[key] for key in kept}, tmp_path / "weights.ckpt")
    with pytest.raises(CheckpointError, match=r"weights.ckpt holds no optimizer_states, .*save_weights_only=True"):
        train(tmp_path, resume=tmp_path / "weights.ckpt")


def test_a_checkpoint_of_a_teacher_with_other_weights_is_refused(tmp_path: Path) -> None:
    whole = train(tmp_path, max_steps=3)
    net = Noisy()
    with torch.no_grad():
        net[0].weight.neg_()
    whole["shortcutv2v"]["teacher"] = fingerprint(net)
    torch.save(whole, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="the checkpoint is of .* with other weights"):
        train(tmp_path, resume=tmp_path / "other.ckpt")
