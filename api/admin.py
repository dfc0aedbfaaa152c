"""API tokens in the admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.http import HttpRequest
from django.utils.html import format_html

from api.models import ApiToken
from replicas.admin_tokens import ShownOnceAdmin

HELP = {
    "name": "What uses it, like deploy-pipeline: it stands in the log of acts. At most 63 characters.",
    "user": "Acts are logged as theirs, and the token may do no more than they may. Who is no staff any more has no "
    "tokens that work.",
    "scope": format_html(
        "Give the least that will do. A streaming server that adds itself needs no more than register. What each may "
        'is in docs/api.md, and in <a href="{}">the API’s own description</a>.',
        "/api/v1/openapi.json",
    ),
    "enabled": "Off: it is refused from now on.",
    "expires_at": "From then on it is refused. Left empty: it does not expire.",
}


@admin.register(ApiToken)
class ApiTokenAdmin(ShownOnceAdmin):
    help_texts = HELP
    list_display = ("name", "beginning", "scope", "user", "state", "last_used_at")
    list_filter = ("scope",)
    list_select_related = ("user",)
    search_fields = ("name", "beginning", "user__username")
    fields = ("name", "user", "scope", "enabled", "expires_at")

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"user": request.user.pk} | super().get_changeform_initial_data(request)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Nobody makes a token that may do more than they may themselves."""
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)
        if db_field.name == "user" and field is not None:
            staff = get_user_model().objects.filter(is_staff=True, is_active=True)
            field.queryset = staff if request.user.is_superuser else staff.filter(pk=request.user.pk or 0)
        return field

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        return super().changelist_view(request, {"title": "API tokens"} | (extra_context or {}))
