"""The router settings in the admin: one row, in the blocks of the config file (contract A6).

Imported by admin.py. Each block says what its values lead to and from when on.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from replicas.admin_forms import SettingsForm, SinceShownAdmin
from replicas.config import BLOCKS
from replicas.models import RouterSettings


def _fields(block: str) -> tuple[str, ...]:
    return tuple(name for name, _ in BLOCKS[block].values())


@admin.register(RouterSettings)
class RouterSettingsAdmin(SinceShownAdmin):
    """Its list leads straight to its form."""

    form = SettingsForm
    fieldsets = (
        (
            "Health check",
            {
                "fields": _fields("health_check"),
                "description": "When a replica gets sessions and when no longer. The prober follows within a second, "
                "without a restart; what it has counted so far stays. Example: /readyz every 5 s, out after 3 "
                "failures, back after 2 successes. No session is closed by it: one whose replica dies hears of it at "
                "once, whatever stands here.",
            },
        ),
        (
            "Balancing",
            {
                "fields": _fields("balancing"),
                "description": "Which replica a new session goes to. Counts from the next placement on, in every "
                "router process; sessions stay where they are. Example: with least sessions, three replicas of weight "
                "1, 1 and 2 that have 4, 5 and 6 sessions: the next goes to the third, for 6 ÷ 2 is the least.",
            },
        ),
        (
            "The line",
            {
                "fields": _fields("queue"),
                "description": "What happens to clients while no slot is free: they wait, first come first served, and "
                "are told their position. Counts from the next placement on, in every router process; a shorter line "
                "refuses those who come next and sends nobody away who waits already. Example: 100 clients for 120 s "
                "at most; the 101st hears gpu_unavailable at once and may try again.",
            },
        ),
        (
            "Who may stream",
            {
                "fields": _fields("access"),
                "description": "Whom the router lets in, before it looks for a slot. Counts for those who come next, "
                "in every router process; no session is closed by it. Who is refused hears session_rejected and is "
                "closed with 1008. Example: token, 2 and 10: a client shows a stream token (or a ticket), and one "
                "address has at most 2 sessions at once and 10 new ones a minute.",
            },
        ),
    )

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        RouterSettings.objects.get_or_create(pk=1)
        return HttpResponseRedirect(reverse("admin:replicas_routersettings_change", args=[1]))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: RouterSettings | None = None) -> bool:
        return False
