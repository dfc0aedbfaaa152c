"""The version that the router shows is the one that it is installed as."""

from __future__ import annotations

import tomllib
from pathlib import Path

from replicas.version import VERSION


def test_the_version_is_the_projects() -> None:
    """pyproject.toml's."""
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
