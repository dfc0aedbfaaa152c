"""How a replica looks in the admin: the columns of the list and the read-only sections of the form.

Mixed into ReplicaAdmin. Colours are classes of routerproject/static; no style stands in the HTML, because the
Content-Security-Policy forbids it. Every badge says its word: colour is never the only sign.
"""

from __future__ import annotations

import time
from datetime import datetime

from django.contrib import admin
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

from replicas import wording
from replicas.health import UNKNOWN
from replicas.models import Replica

NOTHING = "–"


class HealthColumns:
    """The list's cells."""

    @admin.display(description="Replica", ordering="name")
    def named(self, replica: Replica) -> SafeString:
        return format_html('{}<span class="address">{}</span>', replica.name, replica.url)

    @admin.display(description="Primary", ordering="-primary")
    def primary_mark(self, replica: Replica) -> str | SafeString:
        if replica.deleted_at:
            return NOTHING
        if replica.primary:
            return format_html('<span class="mark" title="{}">{}</span>', "The primary is filled first.", "★ primary")
        # A button of the list's own form, so that it posts with its CSRF token and needs no script.
        return format_html(
            '<button type="submit" class="mark-button" formaction="{}" title="Make {} the primary">'
            "☆ make primary</button>",
            reverse("admin:replicas_replica_make_primary", args=[replica.pk]),
            replica.name,
        )

    @admin.display(description="Status", ordering="health__status")
    def status_badge(self, replica: Replica) -> SafeString:
        return format_html('<span class="badge status-{0}">{0}</span>', replica.status)

    @admin.display(description="Status", ordering="health__status")
    def status_and_error(self, replica: Replica) -> str | SafeString:
        """The list's: below the badges what the last probe says is wrong, and what sessions find."""
        if replica.deleted_at:  # not probed any more
            return NOTHING
        ejected = replica.passive.ejected(time.time())
        return format_html(
            '{} {}<span class="why">{}</span>{}',
            self.status_badge(replica),
            mark("ejected") if ejected else "",
            replica.observed.last_error if replica.observed else "",
            format_html('<span class="why">{}</span>', self.found(replica)) if ejected else "",
        )

    @admin.display(description="State", ordering="state")
    def state_badge(self, replica: Replica) -> SafeString:
        if replica.deleted_at:
            left = wording.sessions(replica.live)  # type: ignore[attr-defined]  # counted for the page
            return format_html('{}<span class="why">{} left</span>', mark("deleted"), left)
        shown = replica.get_state_display().lower()
        why = format_html('<span class="why">{}</span>', "has not renewed") if replica.lapsed else ""
        return format_html('<span class="badge state-{}">{}</span>{}', replica.state, shown, why)

    @admin.display(description="Sessions")
    def sessions(self, replica: Replica) -> SafeString:
        """“3 of 8”; “3” where it has no end of slots."""
        live: int = replica.live  # type: ignore[attr-defined]  # counted for the page
        taken = replica.slots is not None and live >= replica.slots
        shown = f"{live}" if replica.slots is None else f"{live} of {replica.slots}"
        listed: str = getattr(replica, "listed", "")
        return format_html(
            '<span class="count">{}</span> {}',
            format_html('<a href="{}" title="Its live sessions">{}</a>', listed, shown) if live and listed else shown,
            mark("full") if taken or replica.passive.full(time.time()) else "",
        )

    @admin.display(description="Connects")
    def found(self, replica: Replica) -> str:
        """What sessions found out, as far as it still counts (passive.py)."""
        known, now = replica.passive, time.time()
        said = []
        if known.ejected(now):
            said.append(f"gets no session for {(known.ejected_until or now) - now:.0f} s: connects failed in a row")
        elif known.failures:
            said.append(f"{known.failures} failed in a row")
        if known.full(now):
            said.append(f"counts as full for {(known.full_until or now) - now:.0f} s: it has rejected a session")
        return "; ".join(said) or NOTHING

    @admin.display(description="Latency", ordering="health__last_latency_ms")
    def latency(self, replica: Replica) -> str:
        found = replica.observed and replica.observed.last_latency_ms
        return f"{found:.0f} ms" if found is not None else NOTHING

    @admin.display(description="Last error")
    def last_error(self, replica: Replica) -> str:
        return (replica.observed and replica.observed.last_error) or NOTHING

    @admin.display(description="Last probe", ordering="health__checked_at")
    def last_probe(self, replica: Replica) -> str | SafeString:
        checked = replica.observed and replica.observed.checked_at
        if not checked:
            return "never"
        stale = not replica.deleted_at and replica.is_stale(
            timezone.now(),
            replica.stale_after,  # type: ignore[attr-defined]  # annotated
        )
        return format_html('{} <span class="badge stale">stale</span>', ago(checked)) if stale else ago(checked)

    @admin.display(description="Last change", ordering="health__status_since")
    def last_change(self, replica: Replica) -> str:
        since = replica.observed and replica.observed.status_since
        return ago(since) if since else NOTHING


class HealthSection(HealthColumns):
    """The form's read-only fields, beside those that are columns too."""

    sessions_shown = ("sessions", "found")
    health_shown = (
        "status_badge", "last_probe", "last_change", "last_success", "last_failure", "in_a_row", "latency",
        "last_error", "reports",
    )  # fmt: skip

    origin_shown = ("origin", "added")

    @admin.display(description="Brought in by")
    def origin(self, replica: Replica) -> str:
        if replica.registered:
            said = f"itself: it says so every {replica.registered_ttl_seconds:g} s or oftener"
            return f"{said}; it has not, and is drained" if replica.lapsed else said
        return "a file" if replica.from_file else "people"

    @admin.display(description="Added (UTC)")
    def added(self, replica: Replica) -> SafeString:
        return format_html('<span class="moment">{}</span>', f"{replica.created_at:%Y-%m-%d %H:%M:%S}")

    @admin.display(description="Last success")
    def last_success(self, replica: Replica) -> str:
        found = replica.observed and replica.observed.last_ok_at
        return ago(found) if found else NOTHING

    @admin.display(description="Last failure")
    def last_failure(self, replica: Replica) -> str:
        found = replica.observed and replica.observed.last_failure_at
        return ago(found) if found else NOTHING

    @admin.display(description="In a row")
    def in_a_row(self, replica: Replica) -> str:
        seen = replica.observed
        if not seen or replica.status == UNKNOWN:
            return NOTHING
        return f"{seen.consecutive_successes} successes, {seen.consecutive_failures} failures"

    @admin.display(description="It reports")
    def reports(self, replica: Replica) -> str:
        seen = replica.observed
        if not seen:
            return NOTHING
        facts = {"readiness": seen.reported_readiness, "slots": seen.reported_slots, "sessions": seen.reported_sessions}
        return ", ".join(f"{name} {value}" for name, value in facts.items() if value not in (None, "")) or NOTHING


def mark(word: str) -> SafeString:
    """A sign that stands beside a value only while it holds."""
    return format_html('<span class="badge {0}">{0}</span>', word)


def ago(moment: datetime) -> str:
    """`moment` as people say it: “3 s ago”, “2 hours, 5 minutes ago”."""
    seconds = (timezone.now() - moment).total_seconds()
    return f"{max(0, seconds):.0f} s ago" if seconds < 120 else f"{timesince(moment)} ago"
