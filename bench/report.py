"""PURE. results.json → the text of results.md. Numbers only: what they mean is said in README.md here.

A cell is the median of all rounds with the least and the greatest below it in small type. Called by write.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.reach import ROUTER, Verdict, verdicts
from bench.summary import Spread, Summary

Cell = Callable[[str, str], Spread | None]  # peer, case

LOAD_LIMIT = 0.95
SATURATED = 0.9  # of its core: a proxy below it was held up by something else in that window


def report(results: dict[str, Any]) -> str:
    summary = Summary(results)
    parts = [
        "# Results of the bench",
        _how(results),
        "## Reach",
        _reach(verdicts(summary)),
        "## Proxy CPU per frame, µs",
        "Streams as fast as they go, x50 and x500 that many at once. At this speed a proxy finds many small frames in "
        "each read: 100 B are a burst.",
        _table(summary, _streams(results), lambda peer, case: summary.spread(case, peer, "cpu_us_per_frame")),
        "## Proxy CPU per MB of payload, µs",
        _table(summary, _streams(results), lambda peer, case: summary.spread(case, peer, "cpu_us_per_mb")),
        "## Throughput, MB/s",
        _table(summary, _streams(results), lambda peer, case: summary.spread(case, peer, "mb_per_s")),
        "## Echo",
        "One message in flight a session. Added is what is more than without a proxy in the same round.",
        *_echoes(summary, results),
        "## Sessions",
        *_sessions(summary, results),
        "## Was it fair?",
        _fair(summary, results),
        _versions(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def terminal(results: dict[str, Any]) -> str:
    """The table of reach for whoever waits for it."""
    lines = []
    for verdict in verdicts(Summary(results)):
        if verdict.ratio:
            row = verdict.row
            asked = "" if row.limit is None else f"{row.sign} {_number(row.limit)}"
            beside, ratio = f"÷ {_peer(verdict)}", _number(verdict.ratio.median)
            lines.append(f"{row.text:<42} {beside:<22} {ratio:>6} {asked:>8}  {_word(verdict).replace('*', '')}")
    return "\n".join(lines)


def _how(results: dict[str, Any]) -> str:
    machine, plan = results["machine"], results["plan"]
    text = (
        f"{results['date']}, {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, Python "
        f"{machine['python']}. Medians of {plan['rounds']} rounds, windows of {plan['window_seconds']:g} s, in small "
        f"type the least and the greatest. Each proxy had one core for itself, client and replica the other."
    )
    warnings = []
    if results["quick"]:
        warnings.append("**A quick run: few and short windows. For figures to quote use `make bench`.**")
    if machine.get("others", 0) > 0.03 or machine.get("stolen", 0) > 0.03:
        warnings.append("**Other work took part of the cores (see the end): repeat on a machine that is quiet.**")
    if machine["shared_core"]:
        warnings.append("**Load and proxy shared a core: throughput and latency say little.**")
    return "\n\n".join([text, *warnings])


def _reach(found: list[Verdict]) -> str:
    lines = ["| figure | beside | ratio | asked | reached |", "|---|---|---|---|---|"]
    for verdict in found:
        row = verdict.row
        asked = "–" if row.limit is None else f"{row.sign} {_number(row.limit)}"
        if row.aim is not None:
            asked += f", aim {_number(row.aim)}"
        lines.append(f"| {row.text} | {_peer(verdict)} | {_cell(verdict.ratio)} | {asked} | {_word(verdict)} |")
    return "\n".join(lines)


def _peer(verdict: Verdict) -> str:
    return f"itself, {verdict.row.peer_case}" if verdict.row.peer == ROUTER else verdict.row.peer


def _word(verdict: Verdict) -> str:
    if verdict.ratio is None:
        return "not measured"
    if verdict.row.limit is None:
        return "router ahead" if verdict.ahead else "peer ahead"
    word = "yes" if verdict.reached else "**no**"
    if verdict.reached and verdict.aim_reached is not None:
        word += ", the aim too" if verdict.aim_reached else ", not the aim"
    return word


def _streams(results: dict[str, Any]) -> list[str]:
    return [case["name"] for case in results["cases"] if case["kind"] != "echo"]


def _echoes(summary: Summary, results: dict[str, Any]) -> list[str]:
    parts = []
    for case in [case["name"] for case in results["cases"] if case["kind"] == "echo"]:
        columns: dict[str, Callable[[str], Spread | None]] = {
            "p50, µs": lambda peer, case=case: summary.spread(case, peer, "p50_us"),  # type: ignore[misc]
            "p99, µs": lambda peer, case=case: summary.spread(case, peer, "p99_us"),  # type: ignore[misc]
            "added p50, µs": lambda peer, case=case: summary.added(case, peer, "p50_us"),  # type: ignore[misc]
            "added p99, µs": lambda peer, case=case: summary.added(case, peer, "p99_us"),  # type: ignore[misc]
            "CPU per message, µs": lambda peer, case=case: summary.spread(case, peer, "cpu_us_per_message"),  # type: ignore[misc]
            "echoes/s": lambda peer, case=case: summary.spread(case, peer, "echoes_per_s"),  # type: ignore[misc]
        }
        parts += [f"### {case}", _table(summary, list(columns), lambda peer, name, c=columns: c[name](peer))]  # type: ignore[misc]
    return parts


def _sessions(summary: Summary, results: dict[str, Any]) -> list[str]:
    columns = {
        "opened per second": "opens_per_s",
        "CPU per opening, µs": "open_cpu_us",
        "KiB per idle session": "kib_per_session",
        "then CPU per frame, µs": "cpu_us_per_frame",
        "then MB/s": "mb_per_s",
    }
    parts = []
    for case in [case["name"] for case in results["cases"] if case["kind"] == "open"]:
        table = _table(summary, list(columns), lambda peer, name, c=case: summary.spread(c, peer, columns[name]))  # type: ignore[misc]
        parts += [f"### {case}", table]
    return parts


def _fair(summary: Summary, results: dict[str, Any]) -> str:
    machine = results["machine"]
    lines = [
        f"Other work took {machine.get('others', 0):.1%} of the cores' time during the run, the hypervisor "
        f"{machine.get('stolen', 0):.1%}.",
        "The load side (client and replica, one core) and how far it was from being the limit:",
        "",
        "| case | no proxy, MB/s | fastest proxy, MB/s | headroom | load was the limit for | proxy not saturated |",
        "|---|---|---|---|---|---|",
    ]
    for case in _streams(results):
        proxies = [peer for peer in summary.peers if peer != "direct"]
        speeds = [s.median for peer in proxies if (s := summary.spread(case, peer, "mb_per_s"))]
        direct = summary.spread(case, "direct", "mb_per_s")
        bound = [p for p in proxies if (s := summary.spread(case, p, "load_busy")) and s.median >= LOAD_LIMIT]
        idle = [p for p in proxies if (s := summary.spread(case, p, "proxy_busy")) and s.median < SATURATED]
        if speeds and direct:
            lines.append(
                f"| {case} | {direct.median:,.0f} | {max(speeds):,.0f} | {direct.median / max(speeds):.1f} × "
                f"| {', '.join(bound) or '–'} | {', '.join(idle) or '–'} |"
            )
    lines += [
        "",
        f"Load was the limit: client and replica used {LOAD_LIMIT:.0%} of their core or more, so that this proxy's "
        f"throughput is a lower bound. Not saturated: the proxy used less than {SATURATED:.0%} of its core. Both "
        "by the median. In echoes the load polls without sleeping, and is always busy.",
    ]
    if failures := summary.failures():
        lines += ["", "Failed:", "", *(f"- {failure}" for failure in failures)]
    if results["skipped"]:
        lines += ["", "Skipped, not installed:", ""]
        lines += [f"- {name} (`{hint}`)" for name, hint in results["skipped"].items()]
    return "\n".join(lines)


def _versions(results: dict[str, Any]) -> str:
    lines = ["## Peers", "", "| name | what | version |", "|---|---|---|"]
    lines += [f"| {peer['name']} | {peer['label']} | {peer['version'] or '–'} |" for peer in results["peers"]]
    return "\n".join(lines)


def _table(summary: Summary, columns: list[str], cell: Cell) -> str:
    """A row a peer; columns and rows in which nothing was measured are left out."""
    rows = {peer: [cell(peer, column) for column in columns] for peer in summary.peers}
    used = [index for index in range(len(columns)) if any(row[index] for row in rows.values())]
    lines = [
        "| | " + " | ".join(columns[index] for index in used) + " |",
        "|---" * (len(used) + 1) + "|",
    ]
    for peer, row in rows.items():
        if any(row):
            name = f"**{peer}**" if peer == ROUTER else peer
            lines.append(f"| {name} | " + " | ".join(_cell(row[index]) for index in used) + " |")
    return "\n".join(lines)


def _cell(found: Spread | None) -> str:
    if found is None:
        return "–"
    return f"{_number(found.median)} <sub>{_number(found.low)}–{_number(found.high)}</sub>"


def _number(value: float) -> str:
    """Three figures: 0.00123 → 0.0012, 12.3, 1,234."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"
