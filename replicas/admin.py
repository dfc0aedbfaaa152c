"""The admin: where operators add replicas, mark the primary, drain, and see what the prober sees.

Health is shown and never edited here: the prober alone writes it. What cells and sections look like is in
admin_display.py, what is said of live sessions in admin_sessions.py, the history of health in admin_health.py, what a
form changes of a row in admin_forms.py, the router settings in admin_settings.py.
"""

from __future__ import annotations

import asyncio
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.db.models import DurationField, QuerySet, Value
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse

from replicas import acts, admin_settings, wording  # noqa: F401  (admin_settings registers itself)
from replicas.admin_display import HealthSection
from replicas.admin_forms import ReplicaForm, SinceShownAdmin
from replicas.admin_health import StatusFilter, TransitionInline
from replicas.admin_log import NOTHING, from_to
from replicas.admin_sessions import SessionsAdmin
from replicas.models import HealthTransition, Replica, ReplicaState, RouterSettings

MAX_PROBE_NOW_SECONDS = 10.0  # an operator waits for the answer, and with them the thread that serves the admin

admin.site.site_header = "Stream router"
admin.site.site_title = "Stream router"
admin.site.index_title = "Operations"
admin.site.enable_nav_sidebar = False  # few tables need no sidebar, and their lists need the width


class OriginFilter(admin.SimpleListFilter):
    title, parameter_name = "who brought it in", "from_file"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("0", "People"), ("1", "A file"), ("itself", "Itself")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Replica]) -> QuerySet[Replica]:
        if self.value() == "itself":
            return queryset.exclude(registered_ttl_seconds=None)
        if self.value() in ("0", "1"):
            return queryset.filter(from_file=self.value() == "1", registered_ttl_seconds=None)
        return queryset


@admin.register(Replica)
class ReplicaAdmin(HealthSection, SessionsAdmin, SinceShownAdmin):
    form = ReplicaForm
    list_display = (
        "named", "status_and_error", "state_badge", "primary_mark", "sessions", "weight", "latency", "last_probe",
        "last_change",
    )  # fmt: skip
    list_filter = (StatusFilter, "state", OriginFilter)
    list_select_related = ("health", "record")
    search_fields = ("name", "url")
    search_help_text = "By name or address."
    actions = ("make_primary", "drain", "activate", "disable", "probe_now", "delete_selected")
    ordering = ("id",)
    inlines = (TransitionInline,)
    fieldsets = (
        (None, {"fields": ("name", "url", "primary", "state", "drain_deadline_seconds", "weight", "max_sessions")}),
        ("What sessions find", {"fields": HealthSection.sessions_shown}),
        ("What the prober sees", {"fields": HealthSection.health_shown}),
        ("Where it comes from", {"fields": HealthSection.origin_shown}),
    )
    readonly_fields = HealthSection.sessions_shown + HealthSection.health_shown + HealthSection.origin_shown
    save_on_top = False

    def get_fieldsets(self, request: HttpRequest, obj: Replica | None = None) -> Any:
        return super().get_fieldsets(request, obj) if obj else self.fieldsets[:1]

    def get_inlines(self, request: HttpRequest, obj: Replica | None) -> Any:
        return self.inlines if obj else ()

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return super().changelist_view(request, {"title": "Replicas"} | (extra_context or {}))

    def get_list_display(self, request: HttpRequest) -> Any:
        if self.has_change_permission(request):
            return self.list_display
        return ["primary" if column == "primary_mark" else column for column in self.list_display]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Replica]:
        # With each row, so that the list reads the settings once.
        stale_after = Value(RouterSettings.current().stale_after, output_field=DurationField())
        return Replica.everything.order_by(*self.ordering).annotate(stale_after=stale_after)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """A replica's history goes with it: that nobody may delete from it by hand does not hold the replica."""
        to_delete, counts, perms_needed, protected = super().get_deleted_objects(objs, request)
        return to_delete, counts, perms_needed - {HealthTransition._meta.verbose_name}, protected

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return super().changeform_view(request, *args, **kwargs)
        except IntegrityError:
            # Between the form's check and its write someone else took the mark or the URL: checked again, it says so.
            return super().changeform_view(request, *args, **kwargs)

    # --- make primary: as an action, and with one click in the row ---

    def get_urls(self) -> list[URLPattern]:
        make_primary = path(
            "<path:object_id>/make-primary/",
            self.admin_site.admin_view(self.make_primary_view),
            name="replicas_replica_make_primary",
        )
        return [make_primary, *super().get_urls()]

    def make_primary_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """POST from a row's button; back to the list."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_change_permission(request):
            raise PermissionDenied
        replica = self.get_object(request, unquote(object_id))
        if replica is None:
            raise Http404
        self._move_mark(request, replica)
        return HttpResponseRedirect(reverse("admin:replicas_replica_changelist"))

    @admin.action(description="Make primary", permissions=["change"])
    def make_primary(self, request: HttpRequest, queryset: QuerySet[Replica]) -> None:
        if queryset.count() != 1:
            self.message_user(request, "Select the one replica that is to be the primary.", messages.ERROR)
            return
        self._move_mark(request, queryset.get())

    def _move_mark(self, request: HttpRequest, replica: Replica) -> None:
        with transaction.atomic():  # the deed and its lines in the log
            before = acts.make_primary(replica)
            if before is None:  # deleted at this moment: the mark stays where it is
                self.message_user(request, f"{replica} is gone.", messages.ERROR)
                return
            if moved := from_to("Primary", before[0] if before else NOTHING, replica):
                for each in [*before, replica]:
                    self.log_change(request, each, f"{moved}.")
        self.message_user(request, f"The primary is now {replica}.", messages.SUCCESS)

    # --- the operator's intent ---

    def has_drain_permission(self, request: HttpRequest) -> bool:
        """Who may edit a replica may also drain it."""
        return request.user.has_perm("replicas.drain_replica") or self.has_change_permission(request)

    @admin.action(
        description="Drain: take no new sessions, keep those there are (to the drain deadline, if one is set)",
        permissions=["drain"],
    )
    def drain(self, request: HttpRequest, queryset: QuerySet[Replica]) -> None:
        self._set_state(request, queryset, ReplicaState.DRAINING)

    @admin.action(description="Activate", permissions=["drain"])
    def activate(self, request: HttpRequest, queryset: QuerySet[Replica]) -> None:
        """Who may drain may take a drain back; what somebody has disabled is not theirs to bring back."""
        self._set_state(request, queryset, ReplicaState.ACTIVE)

    @admin.action(description="Disable: drain, and stop probing", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Replica]) -> None:
        self._set_state(request, queryset, ReplicaState.DISABLED)

    def _set_state(self, request: HttpRequest, queryset: QuerySet[Replica], state: ReplicaState) -> None:
        with transaction.atomic():
            changed = list(queryset.select_for_update(of=("self",), no_key=True).exclude(state=state, lapsed=False))
            if not self.has_change_permission(request):
                kept = [replica for replica in changed if replica.state == ReplicaState.DISABLED]
                if kept:
                    names = ", ".join(map(str, kept))
                    self.message_user(request, f"Only who may change replicas takes it back: {names}.", messages.ERROR)
                changed = [replica for replica in changed if replica not in kept]
                if kept and not changed:
                    return
            Replica.objects.filter(pk__in=[replica.pk for replica in changed]).update(state=state)
            for replica in changed:
                self.log_change(request, replica, f"{from_to('State', replica.state, state.value)}.")
        if not changed:
            self.message_user(request, f"Nothing to do: {state.label.lower()} already.", messages.INFO)
        elif state == ReplicaState.ACTIVE:
            self.message_user(request, f"Now active: {', '.join(map(str, changed))}.", messages.SUCCESS)
        else:
            self.say_drained(request, changed, state)

    # --- what may be done with this one, on its own page ---

    def get_acts(self, request: HttpRequest, replica: Replica) -> list[tuple[str, str]]:
        """The actions that change something for `replica` and are permitted: name and label."""
        permitted, state = self.get_actions(request), replica.state
        if replica.deleted_at:
            return []
        apt = {
            "make_primary": ("Make primary", not replica.primary),
            "drain": ("Drain", state == ReplicaState.ACTIVE),
            "activate": (
                "Activate",
                state == ReplicaState.DRAINING
                or (state == ReplicaState.DISABLED and self.has_change_permission(request)),
            ),
            "disable": ("Disable", state != ReplicaState.DISABLED),
            "probe_now": ("Probe now", True),
        }
        return [(name, label) for name, (label, useful) in apt.items() if useful and name in permitted]

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        replica: Replica | None = kwargs.get("obj")
        if replica is not None:
            context["acts"] = self.get_acts(request, replica)
            context["drain_will"] = wording.kept(replica.live, replica.drain_deadline_seconds)  # type: ignore[attr-defined]
        return super().render_change_form(request, context, *args, **kwargs)

    # --- probe now ---

    @admin.action(description="Probe now, and show what it finds", permissions=["view"])
    def probe_now(self, request: HttpRequest, queryset: QuerySet[Replica]) -> None:
        """Shows the result and writes nothing: health is the prober's, or one probe would be counted twice."""
        replicas, plan = list(queryset), RouterSettings.current()
        # A loop of its own: a name server that hangs must not hold up the loop that carries the sessions.
        found = asyncio.run(_probe_all([replica.url for replica in replicas], plan))
        for replica, (result, report) in zip(replicas, found, strict=True):
            if result.ok:
                readiness = f", says “{report.readiness}”" if report.readiness else ""
                self.message_user(request, f"Probed {replica}: it answered in {result.latency_ms:.0f} ms{readiness}.")
            else:
                self.message_user(request, f"Probed {replica}: it failed ({result.error}).", messages.WARNING)


async def _probe_all(urls: list[str], plan: RouterSettings) -> list[Any]:
    from replicas.probe import http_client, probe_all  # with httpx, for which no other command is to wait

    async with http_client() as client:
        return await probe_all(client, urls, plan.health_path, min(plan.timeout_seconds, MAX_PROBE_NOW_SECONDS))
