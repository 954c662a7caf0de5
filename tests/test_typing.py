"""The types that a user's type checker sees."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import shortcutv2v

pytest.importorskip("mypy")
FOLDER = Path(__file__).parent
SOURCE = Path(shortcutv2v.__file__).parents[1]

MISTAKES = {
    "shortcutv2v.nonsense()": 'Module has no attribute "nonsense"',
    "shortcutv2v.measure.nonsense()": 'Module has no attribute "nonsense"',
    "shortcutv2v.fit(model)": 'Missing positional argument "source"',
    "shortcutv2v.fit(model, 'clip.mp4', minutes='five')": 'Argument "minutes" to "fit" has incompatible type "str"',
    "shortcutv2v.fit(teacher, 'clip.mp4')": 'Argument 1 to "fit" has incompatible type "?Module',
    "shortcutv2v.wrap(teacher, 'a')": 'Missing positional argument "dec_layer"',
    "shortcutv2v.wrap(teacher, 'a', 'b', refresh='often')": 'Argument "refresh" to "wrap" has incompatible type "str"',
    "shortcutv2v.load('block', 'teacher')": 'Argument 2 to "load" has incompatible type "str"',
    "model.nonsense()": '"Tensor" not callable',
    "FlowBlock(4, 6)": 'Missing positional argument "channels"',
    "Adapter(teacher).nonsense": '"Mine" has no attribute|"Adapter" has no attribute',
}


def mypy(file: Path, cache: Path) -> list[str]:
    """The lines that mypy says about a file, strictly and without this project's settings."""
    (file.parent / "mypy.ini").write_text("[mypy]\nstrict = true\n")
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(cache), file.name]
    environment = os.environ | {"MYPYPATH": str(SOURCE), "PYTHONPATH": ""}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=file.parent, check=False)
    assert not found.stderr, found.stderr
    return [line for line in found.stdout.splitlines() if line.startswith(file.name)]


def test_a_users_code_has_types(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    own = tmp_path / "user.py"
    right = (FOLDER / "typing_user.py").read_text()
    own.write_text("\n".join([right, *MISTAKES]))
    start, found = len(right.splitlines()) + 2, {}
    for line in mypy(own, pytestconfig.cache.mkdir("mypy")):
        number = int(re.search(r"\.py:(\d+):", line)[1])
        found.setdefault(number, []).append(line)
    assert not {number: lines for number, lines in found.items() if number < start}
    for number, (mistake, message) in enumerate(MISTAKES.items(), start):
        assert any(re.search(message, line) for line in found.get(number, [])), (mistake, found.get(number))
