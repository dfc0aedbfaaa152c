"""The demo's lettering: every prompt can be read in the picture, and none sticks out of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo import lettering
from demo.lettering import fitted, font, readable

SIZE, WIDTH = 26, 600


@pytest.fixture
def no_dejavu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A system without DejaVu Sans."""
    caches = (lettering.font, lettering._has, lettering.fitted)
    monkeypatch.setattr(lettering, "FONT_FILE", "not-installed.ttf")
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def needs_dejavu() -> None:
    if getattr(font(SIZE), "path", None) is None:
        pytest.skip("needs DejaVu Sans: apt-get install fonts-dejavu-core")


def test_what_the_font_has_is_drawn_as_it_is() -> None:
    """Accents, Greek, Cyrillic: no boxes."""
    needs_dejavu()
    text = "Füchse im Schnee – λύκος, лиса, “şahin”…"
    assert readable(text, SIZE) == text


@pytest.mark.usefixtures("no_dejavu")
def test_what_the_font_lacks_has_a_plain_form() -> None:
    """Without DejaVu Sans an accent is dropped; what has no plain form is a question mark, never a box."""
    assert readable("é ş ① лиса", SIZE) == "e s 1 ????"


def test_no_character_is_a_box() -> None:
    """Chinese and emoji too, whatever the font; a joiner is no character of its own."""
    assert set(readable("狐狸 \U0001f98a\ufe0f", SIZE)) <= set("狐狸\U0001f98a\ufe0f ?")
    for character in readable("狐狸 \U0001f98a\ufe0f", SIZE):
        assert lettering._has(character, SIZE)


def test_a_short_prompt_is_one_line_and_a_long_one_is_wrapped() -> None:
    """Between words, each line within the picture."""
    assert fitted("a fox", SIZE, WIDTH, 3) == ("a fox",)
    assert fitted("", SIZE, WIDTH, 3) == ()
    text = "A lighthouse in a storm, waves in slow motion, seen from far away"
    lines = fitted(text, SIZE, WIDTH, 3)
    assert " ".join(lines) == text
    assert len(lines) > 1
    assert max(map(font(SIZE).getlength, lines)) <= WIDTH


@pytest.mark.parametrize("text", ["W" * 60, "i" * 200, "short " + "W" * 60])
def test_a_long_word_is_split_and_loses_nothing(text: str) -> None:
    """Not cut, as long as there are lines."""
    lines = fitted(text, SIZE, WIDTH, 30)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert max(map(font(SIZE).getlength, lines)) <= WIDTH


@pytest.mark.parametrize("text", ["word " * 400, "W" * 2000, "W" * 70 + " and more " * 20])
def test_a_text_that_is_cut_says_so(text: str) -> None:
    """The last line ends with “…” and still fits."""
    lines = fitted(text, SIZE, WIDTH, 3)
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert len(lines[-1]) > 5
    assert max(map(font(SIZE).getlength, lines)) <= WIDTH
