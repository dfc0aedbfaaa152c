"""PURE. What an edit means for the sessions it is about, in the words that admin, files and commands share."""

from __future__ import annotations


def sessions(number: int) -> str:
    """“7 sessions”."""
    return f"{number or 'no'} session{'' if number == 1 else 's'}"


def drained(live: int, deadline_seconds: float | None) -> str:
    """What becomes of the `live` sessions of a replica that drains."""
    if live and deadline_seconds is not None:
        return f"keeps {sessions(live)}; those left after {deadline_seconds:g} s are closed"
    return f"keeps {sessions(live)}"


def deleted(live: int) -> str:
    """What becomes of those of a replica that is deleted."""
    return f"keeps {sessions(live)} to {'its' if live == 1 else 'their'} end" if live else "no session was on it"
