"""Every kind of refresh policy through everything that runs a video: training, saving, translating, measuring."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tests.policies import Alternating, Unexplained, every_second
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v import Adapter, Every
from shortcutv2v.distill import Distiller
from shortcutv2v.measure import Scores, compare, profile
from shortcutv2v.refresh import Function, to_recipe
from shortcutv2v.translate import Translator

POLICIES = {
    "looks": Unexplained(interval=5, limit=1e-4),
    "remembers": Alternating(),
    "function": Function(every_second, interval=6),
    "interval": Every(4),
}


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> Any:
    return POLICIES[request.param]


def clip(frames: int = 9) -> Tensor:
    return torch.randint(0, 256, (frames, 3, 12, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def wrap(chain: nn.Module, policy: Any) -> shortcutv2v.ShortcutV2V:
    torch.manual_seed(1)
    return shortcutv2v.wrap(chain, "1", "4", channels=4, refresh=policy)


class KilledAt3(Distiller):
    """SIGKILL in the middle of the fourth step."""

    def on_after_backward(self) -> None:
        if self.trainer.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)


def train(chain: nn.Module, policy: Any, folder: Path | None = None, **changes: Any) -> shortcutv2v.ShortcutV2V:
    model = wrap(chain, policy)
    settings: dict[str, Any] = {"minutes": None, "max_steps": 5, "crop": 8, "batch_size": 2, "lr": 1e-2}
    settings |= {"progress": False, "save_every": 2, "folder": folder}
    shortcutv2v.fit(model, clip(), **settings | changes)
    return model


@pytest.mark.forks
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the run to kill is forked")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_training_killed_and_resumed(chain: nn.Module, policy: Any, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert in_a_process(lambda: train(chain, policy, whole)) == 0
    assert in_a_process(lambda: train(chain, policy, killed, distiller=KilledAt3)) == -signal.SIGKILL
    assert in_a_process(lambda: train(chain, policy, killed, resume=killed / "last.ckpt")) == 0
    expected, found = (torch.load(folder / "last.ckpt", weights_only=True) for folder in (whole, killed))
    assert found["global_step"] == expected["global_step"] == 5
    assert all(torch.equal(value, found["state_dict"][name]) for name, value in expected["state_dict"].items())
    recipe = found["shortcutv2v"]
    assert (recipe["refresh"], recipe["trained_interval"]) == (to_recipe(policy), policy.interval)


def in_a_process(work: Callable[[], object]) -> int | None:
    """Exit code of a forked process that does `work`; minus the signal that ended it."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(120)
    return process.exitcode


def test_training_draws_distances_up_to_the_horizon(chain: nn.Module, policy: Any) -> None:
    model, seen = wrap(chain, policy), set()

    class Watch(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
            seen.add(trainer.datamodule.pairs.max_interval)

    class Watched(Distiller):
        def configure_callbacks(self) -> list[pl.Callback]:
            return [Watch()]

    shortcutv2v.fit(
        model, clip(), minutes=None, max_steps=1, crop=8, batch_size=2, progress=False, cache=None, distiller=Watched
    )
    assert seen == {policy.interval - 1}


def test_saved_translated_measured_profiled(chain: nn.Module, policy: Any, tmp_path: Path) -> None:
    adapter = Adapter(chain, "1", "4")
    model = train(chain, policy)
    model.save(tmp_path / "block")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        loaded = shortcutv2v.load(tmp_path / "block", chain)
    function = isinstance(policy, Function)
    assert [w for w in told if "cannot be stored" in str(w.message)] if function else loaded.refresh == policy
    loaded.refresh = policy
    stream = model.stream()
    expected = [(stream(frame[None].float() / 255), stream.distance)[1] for frame in clip()]
    translator = Translator(adapter, loaded)
    found = [(translator(frame), translator.stream.distance)[1] for frame in clip()]
    assert found == expected
    measured = Scores([pictures.score for pictures in compare(loaded, adapter, clip())])
    assert [score.distance for score in measured.frames] == expected
    assert 0 < len(measured.at()) < len(expected)
    text = str(profile(loaded, (clip()[:1].float() / 255,), seconds=0.05, cuts=0))
    assert f"refresh every {policy.interval} frames" in text
