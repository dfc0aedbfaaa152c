"""Text for the demo's pictures: in a font that has its characters, and in lines that fit.

Called by video.py for every frame, so that what is computed is kept.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from PIL import ImageFont

# Has Latin, Greek, Cyrillic, Arabic and more; Debian's fonts-dejavu-core, and on most Linux desktops.
FONT_FILE = "DejaVuSans.ttf"
NO_CHARACTER = "\U0010ffff"  # stands in no font: drawn as every character is that a font lacks

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@lru_cache(maxsize=16)
def font(size: int) -> Font:
    """DejaVu Sans where the system has it, else Pillow's own, which knows little more than ASCII."""
    try:
        return ImageFont.truetype(FONT_FILE, size)
    except OSError:
        return ImageFont.load_default(size)


@lru_cache(maxsize=64)
def fitted(text: str, size: int, width: int, most: int) -> tuple[str, ...]:
    """`text` in at most `most` lines of `width` pixels. Too long a word is split; a text that is cut ends with “…”."""
    letters = font(size)
    lines = _lines(readable(text, size), letters, width, most + 1)
    if len(lines) > most:
        last = lines[most - 1]
        while last and letters.getlength(f"{last}…") > width:
            last = last[:-1]
        lines[most - 1 :] = [f"{last.rstrip()}…"]
    return tuple(lines)


def readable(text: str, size: int) -> str:
    """`text` in characters that the font has: what it lacks becomes its plain form (é → e, ① → 1), or “?”."""
    return "".join(c if _has(c, size) else _plain(c) for c in text)


def _lines(text: str, letters: Font, width: int, most: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".lstrip()
        if letters.getlength(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        line = word
        while letters.getlength(line) > width and len(lines) < most:
            fits = 1
            while letters.getlength(line[: fits + 1]) <= width:
                fits += 1
            lines.append(line[:fits])
            line = line[fits:]
        if len(lines) >= most:
            return lines[:most]
    return [*lines, line] if line else lines


def _plain(character: str) -> str:
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    invisible = unicodedata.category(character)[0] in "MC"  # marks, joiners: not a character of their own
    return plain or ("" if invisible else "?")


@lru_cache(maxsize=4096)
def _has(character: str, size: int) -> bool:
    if character.isascii():
        return True
    return _drawn(character, size) != _drawn(NO_CHARACTER, size)


def _drawn(character: str, size: int) -> tuple[tuple[int, int], bytes]:
    mask = font(size).getmask(character)
    return mask.size, bytes(mask)
