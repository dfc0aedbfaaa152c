"""What the pages' policy forbids stands in no template: the browser would drop it without a word to the operator."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.test_structure import ROOMS, ROOT, name_of

FORBIDDEN = {
    "a style in the page": r"<style\b",
    "a style in an element": r"\sstyle\s*=",
    "a script in the page": r"<script\b(?![^>]*\bsrc=)",
    "a script in an element": r"<[^>]*\son[a-z]+\s*=",
    "a script as an address": r"=\s*[\"']\s*javascript:",
    "somebody else's server": r"(?:src|href)\s*=\s*[\"'](?:https?:)?//",
}


def templates() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("templates/**/*.html"))


@pytest.mark.parametrize("path", templates(), ids=name_of)
def test_a_template_has_nothing_that_the_policy_forbids(path: Path) -> None:
    """Scripts and styles are files of ours."""
    text = path.read_text()
    assert [what for what, pattern in FORBIDDEN.items() if re.search(pattern, text, re.IGNORECASE)] == []


def test_there_are_templates() -> None:
    """Or the test above would hold for no page."""
    names = {path.name for path in templates()}
    assert names >= {"400.html", "403.html", "403_csrf.html", "404.html", "500.html", "base_site.html", "player.html"}
