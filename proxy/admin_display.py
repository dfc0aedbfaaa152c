"""How a session and a router process look in the admin: the cells of admin.py.

Colours are classes of routerproject/static, as in replicas/admin_display.py; every badge says its word.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.contrib import admin
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from proxy.census import DEAD_SECONDS
from proxy.explain import explain
from proxy.models import ProcessTraffic, RouterProcess, Session
from replicas.admin_display import NOTHING, ago, mark

SHORT = 8  # characters of a session's id, which has 32: enough to tell those of a page apart, and to search for
SILENT_AFTER = timedelta(seconds=DEAD_SECONDS)  # then the others end a process (census.py)


def duration(took: timedelta | None) -> str:
    """“0.25 s”, “42 s”, “3 min 5 s”, “2 h 5 min”."""
    if took is None:
        return NOTHING
    seconds = max(0.0, took.total_seconds())
    if seconds < 10:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(octets: int) -> str:
    """“0 B”, “1.5 KiB”, “340 MiB”."""
    amount, unit = float(octets), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1000:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def moment(at: datetime | None) -> SafeString | str:
    return format_html('<span class="moment">{}</span>', f"{at:%Y-%m-%d %H:%M:%S}") if at else NOTHING


def carried(session: Session) -> list[int] | None:
    """Bytes up, bytes down, and of a live one the rates, which its process says (`count_carried`); None: not yet."""
    if session.ended_at:
        return [session.bytes_up, session.bytes_down, 0, 0]
    live: list[int] | None = getattr(session, "carried", None)
    return live


def count_carried(sessions: Iterable[Session]) -> None:
    """Give each live row what its process last said it has carried. One query, and none where none is live."""
    live = [session for session in sessions if session.ended_at is None]
    if not live:
        return
    said = dict(
        ProcessTraffic.objects.filter(process__in={session.process_id for session in live}).values_list(
            "pk", "sessions"
        )
    )
    for session in live:
        session.carried = said.get(session.process_id or 0, {}).get(str(session.pk))  # type: ignore[attr-defined]


class SessionCells:
    """Sessions: the list's cells, and those of one of them."""

    @admin.display(description="Session", ordering="id")
    def short_uid(self, session: Session) -> SafeString:
        return format_html('<span class="uid" title="{}">{}</span>', session.uid, session.uid[:SHORT])

    @admin.display(description="Replica", ordering="replica_name")
    def on_replica(self, session: Session) -> SafeString | str:
        """As it was called when the session came there; a link while it is there."""
        name = session.replica_name or session.url
        if not name or session.replica_id is None:
            return name or NOTHING
        page = reverse("admin:replicas_replica_change", args=[session.replica_id])
        return format_html('<a href="{}">{}</a>', page, name)

    @admin.display(description="State")
    def state(self, session: Session) -> SafeString:
        word = "ended" if session.ended_at else "live" if session.url else "waiting"
        asked = session.disconnect_reason is not None and not session.ended_at
        return format_html(
            '<span class="badge session-{0}">{0}</span> {1}', word, mark("disconnecting") if asked else ""
        )

    @admin.display(description="In a sentence")
    def story(self, session: Session) -> SafeString:
        """Why it has ended; of a live one where it is."""
        if session.ended_at:
            told = explain(session)
        elif session.url:
            told = f"on replica {session.replica_name}" if session.replica_name else f"at {session.url}"
        else:
            told = "waits in the line"
        return format_html('<span class="story">{}</span>', told[:1].upper() + told[1:])

    @admin.display(description="Client", ordering="client")
    def from_client(self, session: Session) -> SafeString | str:
        """With a way to all that came from this address."""
        if not session.client:
            return NOTHING
        page = f"{reverse('admin:proxy_session_changelist')}?{urlencode({'q': session.client})}"
        return format_html('{} · <a href="{}">all from there</a>', session.client, page)

    @admin.display(description="Router process", ordering="process")
    def in_process(self, session: Session) -> SafeString | str:
        process = session.process
        if process is None:
            return NOTHING
        page = reverse("admin:proxy_routerprocess_change", args=[process.pk])
        return format_html('<a href="{}">{}</a>', page, process)

    @admin.display(description="Opened (UTC)", ordering="opened_at")
    def opened(self, session: Session) -> SafeString | str:
        return moment(session.opened_at)

    @admin.display(description="Placed")
    def placed(self, session: Session) -> SafeString | str:
        return moment(session.placed_at)

    @admin.display(description="First media")
    def first_media(self, session: Session) -> SafeString | str:
        return moment(session.first_media_at)

    @admin.display(description="Ended")
    def ended(self, session: Session) -> SafeString | str:
        return moment(session.ended_at)

    @admin.display(description="Waited")
    def waited(self, session: Session) -> str:
        """For its first slot; until its end, where it got none."""
        return duration((session.placed_at or session.ended_at or timezone.now()) - session.opened_at)

    @admin.display(description="Lasted")
    def lasted(self, session: Session) -> str:
        return duration((session.ended_at or timezone.now()) - session.opened_at)

    @admin.display(description="Up / down")
    def traffic(self, session: Session) -> SafeString | str:
        said = carried(session)
        if said is None:
            return NOTHING
        return format_html('<span class="count">{} / {}</span>', size(said[0]), size(said[1]))

    @admin.display(description="Client → replica")
    def up(self, session: Session) -> str:
        return _one_way(session, session.frames_up, 0)

    @admin.display(description="Replica → client")
    def down(self, session: Session) -> str:
        return _one_way(session, session.frames_down, 1)


def _one_way(session: Session, frames: int, way: int) -> str:
    """`way`: 0 up, 1 down."""
    said = carried(session)
    if said is None:
        return NOTHING
    return f"{frames} frames, {size(said[way])}" if session.ended_at else f"{size(said[way])}, {size(said[way + 2])}/s"


class ProcessCells:
    """Router processes."""

    @admin.display(description="State")
    def state(self, process: RouterProcess) -> SafeString:
        word = "ended" if process.ended_at else "draining" if process.draining else "live"
        silent = not process.ended_at and timezone.now() - process.beaten_at > SILENT_AFTER
        return format_html('<span class="badge process-{0}">{0}</span> {1}', word, mark("silent") if silent else "")

    @admin.display(description="Live sessions")
    def live_sessions(self, process: RouterProcess) -> SafeString | int:
        live = getattr(process, "live", None) or 0
        page = reverse("admin:proxy_session_changelist")
        return format_html('<a href="{}?process={}&amp;state=live">{}</a>', page, process.pk, live) if live else 0

    @admin.display(description="Started (UTC)", ordering="started_at")
    def started(self, process: RouterProcess) -> SafeString | str:
        return moment(process.started_at)

    @admin.display(description="Last beat", ordering="beaten_at")
    def last_beat(self, process: RouterProcess) -> str:
        return ago(process.beaten_at)

    @admin.display(description="Ended (UTC)", ordering="ended_at")
    def ended(self, process: RouterProcess) -> SafeString | str:
        return moment(process.ended_at)
