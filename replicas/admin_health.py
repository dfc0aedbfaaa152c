"""The history of health in the admin, for reading: all of it, and the latest of one replica in its form.

Imported by admin.py. Nothing here can be added, changed or deleted: the prober writes the history and prunes it.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime

from replicas.health import STATUSES, UNKNOWN
from replicas.models import HealthTransition, Replica

SHOWN_TRANSITIONS = 20


class StatusFilter(admin.SimpleListFilter):
    """By what the prober last saw at the replica's URL; where it has seen nothing, that is unknown."""

    title, parameter_name = "status", "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(status, status.capitalize()) for status in STATUSES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Replica]) -> QuerySet[Replica]:
        seen_here = Q(health__url=F("url"))
        if self.value() == UNKNOWN:
            return queryset.exclude(seen_here & ~Q(health__status=UNKNOWN))
        return queryset.filter(seen_here, health__status=self.value()) if self.value() in STATUSES else queryset


class TransitionCells:
    """A transition's columns, in the form of a replica and in the list of all."""

    @admin.display(description="Time (UTC)", ordering="at")
    def time(self, transition: HealthTransition) -> str:
        return localtime(transition.at).strftime("%Y-%m-%d %H:%M:%S")

    @admin.display(description="Change")
    def change(self, transition: HealthTransition) -> SafeString:
        badge = '<span class="badge status-{0}">{0}</span>'
        return format_html(f"{badge} → {badge.replace('0', '1')}", transition.old_status, transition.new_status)


class TransitionInline(TransitionCells, admin.TabularInline):  # type: ignore[type-arg]
    """The latest changes of a replica's status."""

    model = HealthTransition
    fields = readonly_fields = ("time", "change", "reason")
    extra = max_num = 0
    can_delete = False
    verbose_name_plural = f"Last {SHOWN_TRANSITIONS} changes of status"

    def get_queryset(self, request: HttpRequest) -> QuerySet[HealthTransition]:
        found = super().get_queryset(request)
        replica = request.resolver_match and request.resolver_match.kwargs.get("object_id")
        if replica:
            latest = found.filter(replica_id=unquote(replica)).order_by("-at", "-id")
            found = found.filter(pk__in=list(latest.values_list("pk", flat=True)[:SHOWN_TRANSITIONS]))
        return found

    def has_add_permission(self, request: HttpRequest, obj: Replica | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Replica | None = None) -> bool:
        return False


@admin.register(HealthTransition)
class HealthTransitionAdmin(TransitionCells, admin.ModelAdmin):  # type: ignore[type-arg]
    """The history of all replicas, for reading."""

    list_display = ("time", "replica", "change", "reason")
    list_filter = ("new_status", "replica")
    list_select_related = ("replica",)
    date_hierarchy = "at"
    fields = ("time", "replica", "change", "reason")

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return super().changelist_view(request, {"title": "Changes of status"} | (extra_context or {}))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: HealthTransition | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: HealthTransition | None = None) -> bool:
        return False
