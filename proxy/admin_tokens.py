"""Stream tokens in the admin: made here, shown once, switched off here. Imported by admin.py."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest

from proxy.models import LIVE, Session, StreamToken
from replicas.admin_tokens import ShownOnceAdmin

HELP = {
    "name": "What it is for, like web-backend: it stands beside its sessions. At most 63 characters.",
    "enabled": "Off: it is refused from now on. Sessions that it has already go on; disconnect them in their list.",
    "expires_at": "From then on it is refused. Left empty: it does not expire.",
    "origins": "Of pages, one a line, like https://app.example.com, or https://*.example.com for its subdomains. A "
    "ticket is given for these alone, and a client that names none of them is refused. Left empty: any, and none.",
    "max_sessions": "At once with this token, those in the line among them; 0: no limit.",
    "new_sessions_per_minute": "Within 60 s with this token; 0: no limit.",
}


@admin.register(StreamToken)
class StreamTokenAdmin(ShownOnceAdmin):
    help_texts = HELP
    list_display = ("name", "beginning", "state", "live_sessions", "at_once", "a_minute")
    search_fields = ("name", "beginning")
    fields = ("name", "enabled", "expires_at", "origins", "max_sessions", "new_sessions_per_minute")

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "origins":
            kwargs["widget"] = forms.Textarea(attrs={"rows": 3, "cols": 60})
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    @admin.display(description="At once", ordering="max_sessions")
    def at_once(self, token: StreamToken) -> str:
        return str(token.max_sessions or "no limit")

    @admin.display(description="New a minute", ordering="new_sessions_per_minute")
    def a_minute(self, token: StreamToken) -> str:
        return str(token.new_sessions_per_minute or "no limit")

    @admin.display(description="Live sessions")
    def live_sessions(self, token: StreamToken) -> int:
        return Session.objects.filter(LIVE, token=token.pk).count()

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        return super().changelist_view(request, {"title": "Stream tokens"} | (extra_context or {}))
