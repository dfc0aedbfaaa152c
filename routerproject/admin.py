"""Who has typed wrong passwords, and how often: for reading, and to let somebody try again at once."""

from __future__ import annotations

from typing import Any

from axes.models import AccessAttempt
from django.contrib import admin
from django.http import HttpRequest


@admin.register(AccessAttempt)
class AccessAttemptAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # no subscript at run time
    list_display = ("username", "ip_address", "failures_since_start", "attempt_time")
    list_display_links = None
    search_fields = ("username", "ip_address")
    search_help_text = (
        "By name or address. Delete a row, and that name may try again from that address; where an address has tried "
        "many names, delete its rows, or run manage.py axes_reset_ip ADDRESS."
    )
    ordering = ("-attempt_time",)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        return super().changelist_view(request, {"title": "Sign-ins that failed"} | (extra_context or {}))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
