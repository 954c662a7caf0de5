"""Saving under kills, by several processes and threads at once: weights and recipe always belong together."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from pathlib import Path

import pytest
import torch
from kill_saves import network, state, wrapped
from killing import killed

KILLS = 60

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes to kill are forked")


@pytest.mark.faults
def test_killed_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_kills(tmp_path, KILLS, capsys)


def test_a_few_killed_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same in a second, for the fast tests."""
    run_kills(tmp_path, 12, capsys)


def run_kills(folder: Path, kills: int, capsys: pytest.CaptureFixture[str]) -> None:
    found = killed("kill_saves.py", folder, kills)
    counts = Counter(found["counts"])
    with capsys.disabled():
        print(f"\nkilled saves: {kills} tried, {counts['right']} right, {len(found['other'])} anything else")
    assert not found["other"], json.dumps(found["other"], indent=1)


def test_threads_that_save_to_one_folder(tmp_path: Path) -> None:
    """A reader in between gets one of the models, whole."""
    teacher = network()
    models = [wrapped(teacher, seed, interval) for seed, interval in ((1, 3), (2, 9), (3, 5))]
    models[0].save(tmp_path)
    done, errors = threading.Event(), []

    def save(model: torch.nn.Module) -> None:
        try:
            while not done.is_set():
                model.save(tmp_path)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    found = Counter(state(tmp_path, teacher, models) for _ in range(40))
    done.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert found == {"right": 40}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["block.safetensors", "shortcut.json"]
