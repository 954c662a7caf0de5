"""The lower bounds of `pyproject.toml` are the versions that `nox -s lowest` tests."""

import re
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).parents[1]
DIRECT = (ROOT / "constraints-lowest.txt").read_text().partition("# What these need of others")[0]


def test_lower_bounds_are_tested() -> None:
    project = (ROOT / "pyproject.toml").read_text().partition("lint = [")[0]
    bounds = re.findall(r'"([\w-]+)(?:\[\w+\])?[>=]=([\d.]+)', project)
    tested = re.findall(r"^([\w-]+)==([\d.]+)$", DIRECT, re.MULTILINE)
    assert {(name, Version(bound)) for name, bound in bounds} == {(name, Version(bound)) for name, bound in tested}
