"""PURE. What an edit means for the sessions it is about, in the words that admin, files and commands share."""

from __future__ import annotations

from collections.abc import Mapping


def sessions(number: int, what: str = "") -> str:
    """“7 sessions”; with `what`, “7 live sessions”."""
    return " ".join(filter(None, (str(number or "no"), what, "session" if number == 1 else "sessions")))


def drained(live: int, deadline_seconds: float | None) -> str:
    """What becomes of the `live` sessions of a replica that drains."""
    if live and deadline_seconds is not None:
        return f"keeps {sessions(live)}; those left after {deadline_seconds:g} s are closed"
    return f"keeps {sessions(live)}"


def kept(live: int, deadline_seconds: float | None = None) -> str:
    """What an act that begins a drain, or takes it back, will do to the `live` sessions of a replica."""
    later = (
        f"; those left after {deadline_seconds:g} s are closed (1012)" if live and deadline_seconds is not None else ""
    )
    return f"closes 0, keeps {live}{later}"


def seconds(value: float | None) -> str:
    """“60 s”, “none”."""
    return "none" if value is None else f"{value:g} s"


def edited(live: int) -> str:
    """What an edit may do to them, before it is made."""
    if not live:
        return "No session is live here."
    return (
        f"{sessions(live, 'live')}: saving cuts none of them. A new URL or number of slots counts for sessions that "
        "come; only a drain with a deadline closes those that are left when it is over."
    )


def deleted(live: int) -> str:
    """What becomes of those of a replica that was deleted."""
    return f"keeps {sessions(live)} to {'its' if live == 1 else 'their'} end" if live else "has no session left"


def to_be_deleted(live: Mapping[str, int]) -> str:
    """What a deletion will do, before it is made: to the live sessions of each replica, by its name."""
    busy = {name: number for name, number in live.items() if number}
    if not busy:
        return f"No session is live here: {'it goes' if len(live) == 1 else 'they go'} at once."
    total = sum(busy.values())
    where = "" if len(live) == 1 else f" ({', '.join(f'{name}: {number}' for name, number in busy.items())})"
    go_on = "goes on to its end" if total == 1 else "go on to their end"
    until_then = "it is listed as deleted and takes" if len(busy) == 1 else "these are listed as deleted and take"
    return f"{sessions(total, 'live')}{where} {go_on}. Until then {until_then} no new ones."
