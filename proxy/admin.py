"""The sessions and the router processes in the admin: for reading, and one action, which ends sessions.

What stands in a row is written by placement; an operator's wish goes through steering.py. Filters and columns are such
that a table of many ended sessions is read by its indexes, or in one plain pass: no column is computed by the database.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.db import transaction
from django.db.models import Count, F, OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from proxy import admin_help, admin_tokens, steering  # noqa: F401  (registers its page)
from proxy.admin_dates import FIELD, SessionList
from proxy.admin_display import ProcessCells, SessionCells, count_carried
from proxy.models import LIVE, PLACED, WAITING, RouterProcess, Session
from replicas import wording
from replicas.admin_log import LoggedAdmin
from replicas.models import Replica

ENDED = Q(ended_at__isnull=False)


class ForReading(LoggedAdmin):
    """Nothing is added, changed or deleted here."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class Among(admin.SimpleListFilter):
    """One of a few known choices: Django's own filter would look for them in the whole table."""

    choices_shown: dict[str, tuple[str, Q]]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(key, label) for key, (label, _) in self.choices_shown.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        _, chosen = self.choices_shown.get(self.value() or "", ("", Q()))
        return queryset.filter(chosen)


class StateFilter(Among):
    title, parameter_name = "state", "state"
    choices_shown = {
        "waiting": ("Waiting", WAITING),
        "live": ("Live", PLACED),
        "ended": ("Ended", ENDED),
    }


class EndedByFilter(Among):
    title, parameter_name = "who ended it", "ended_by"
    choices_shown = {who: (who.capitalize(), ENDED & Q(ended_by=who)) for who in ("client", "replica", "router")}


class CloseCodeFilter(Among):
    title, parameter_name = "close code", "close_code"
    _known = {
        1000: "done", 1001: "going away", 1008: "too slow", 1009: "too big", 1011: "lost", 1012: "ended by the router",
        1013: "refused",
    }  # fmt: skip
    choices_shown = {
        **{str(code): (f"{code}, {what}", Q(close_code=code)) for code, what in _known.items()},
        "none": ("none: vanished", ENDED & Q(close_code__isnull=True)),
        "other": ("any other", Q(close_code__isnull=False) & ~Q(close_code__in=_known)),
    }


class ReplicaFilter(admin.SimpleListFilter):
    """Deleted ones too, as long as sessions are on them."""

    title, parameter_name = "replica", "replica"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        replicas = Replica.everything.order_by("name", "id")
        return [(str(r.pk), f"{r} (deleted)" if r.deleted_at else str(r)) for r in replicas]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Session]) -> QuerySet[Session]:
        value = self.value() or ""
        return queryset.filter(replica=int(value)) if _is_key(value) else queryset


class ProcessFilter(admin.SimpleListFilter):
    """Those that live, and the one that is asked for."""

    title, parameter_name = "router process", "process"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        asked = request.GET.get(self.parameter_name, "")
        ours = LIVE | Q(pk=int(asked)) if _is_key(asked) else LIVE
        return [(str(process.pk), str(process)) for process in RouterProcess.objects.filter(ours).order_by("id")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Session]) -> QuerySet[Session]:
        value = self.value() or ""
        return queryset.filter(process=int(value)) if _is_key(value) else queryset


def _is_key(value: str) -> bool:
    return value.isdecimal() and len(value) < 19


class SessionForm(forms.ModelForm):  # type: ignore[type-arg]  # no subscript at run time
    class Meta:
        help_texts = admin_help.SESSION


class ProcessForm(forms.ModelForm):  # type: ignore[type-arg]  # no subscript at run time
    class Meta:
        help_texts = admin_help.PROCESS


@admin.register(Session)
class SessionAdmin(SessionCells, ForReading):
    form = SessionForm
    list_display = (
        "short_uid", "on_replica", "client", "state", "opened", "waited", "lasted", "traffic", "story",
    )  # fmt: skip
    list_filter = (StateFilter, ReplicaFilter, EndedByFilter, CloseCodeFilter, ProcessFilter)
    date_hierarchy = FIELD
    search_fields = ("uid", "client", "replica_name", "token_name")
    search_help_text = "By the session’s id, the client’s address, or the name of its replica or stream token."
    ordering = ("-id",)
    list_per_page = 50
    show_full_result_count = False  # counts a long history twice, and
    show_facets = admin.ShowFacets.NEVER  # once for each choice of each filter
    actions = ("disconnect",)
    fieldsets = (
        (None, {"fields": ("story", "state", "uid", "from_client", "token_name", "in_process", "affinity_key")}),
        ("Placement", {"fields": ("on_replica", "url", "attempts", "avoid")}),
        ("Times (UTC)", {"fields": ("opened", "placed", "first_media", "ended", "waited", "lasted")}),
        ("Traffic", {"fields": ("up", "down")}),
        ("Its end", {"fields": ("close_code", "ended_by", "why", "disconnect_reason")}),
    )

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return super().changelist_view(request, {"title": "Sessions"} | (extra_context or {}))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[SessionList]:
        return SessionList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Session | None:
        session: Session | None = super().get_object(request, object_id, from_field)
        if session is not None:
            count_carried([session])
        return session

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        session: Session | None = kwargs.get("obj")
        live = session is not None and session.ended_at is None
        context["may_disconnect"] = live and self.has_disconnect_permission(request)
        return super().render_change_form(request, context, *args, **kwargs)

    def has_disconnect_permission(self, request: HttpRequest) -> bool:
        # Nobody edits a row, so that `has_change_permission` says no; who has the permission may end sessions.
        return any(request.user.has_perm(f"proxy.{name}_session") for name in ("disconnect", "change"))

    @admin.action(description="Disconnect: end with 1012 and a reason …", permissions=["disconnect"])
    def disconnect(self, request: HttpRequest, queryset: QuerySet[Session]) -> HttpResponse | None:
        """First a page that says how many and asks for the reason, then the deed."""
        live = queryset.filter(LIVE)
        number = live.count()
        if not number:
            self.message_user(request, "Nothing to do: no live session is among those selected.", messages.INFO)
            return None
        if "post" not in request.POST:
            return self._ask(request, queryset, number)
        reason = request.POST.get("reason", "").strip() or steering.DEFAULT_REASON
        with transaction.atomic():  # the deed and its line in the log
            sessions = list(live)
            LogEntry.objects.log_actions(request.user.pk, sessions, CHANGE, f"Disconnected: {reason}")  # type: ignore[arg-type]
            asked = steering.disconnect([session.uid for session in sessions], reason)
        self.message_user(request, f"Told to end: {wording.sessions(asked)} (1012, “{reason}”).", messages.SUCCESS)
        return None

    def _ask(self, request: HttpRequest, queryset: QuerySet[Session], number: int) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": f"Disconnect {wording.sessions(number, 'live')}",
            "opts": self.opts,
            "reason": steering.DEFAULT_REASON,
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across", "0"),
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
            "media": self.media,
        }
        return TemplateResponse(request, "admin/proxy/session/disconnect.html", context)


class ProcessStateFilter(Among):
    title, parameter_name = "state", "state"
    choices_shown = {
        "live": ("Live", LIVE & Q(draining=False)),
        "draining": ("Draining", LIVE & Q(draining=True)),
        "ended": ("Ended", ENDED),
    }


@admin.register(RouterProcess)
class RouterProcessAdmin(ProcessCells, ForReading):
    form = ProcessForm
    list_display = ("name", "version", "state", "live_sessions", "started", "last_beat", "ended", "why")
    list_filter = (ProcessStateFilter,)
    search_fields = ("name",)
    fieldsets = ((None, {"fields": list_display}),)
    ordering = (F("ended_at").desc(nulls_first=True), "-id")

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return super().changelist_view(request, {"title": "Router processes"} | (extra_context or {}))

    def get_queryset(self, request: HttpRequest) -> QuerySet[RouterProcess]:
        # A subquery of live ones, by their own index: the ended ones of a process can be many.
        of_one = Session.objects.filter(LIVE, process=OuterRef("pk")).order_by().values("process")
        counted = Subquery(of_one.annotate(number=Count("pk")).values("number"))
        processes: QuerySet[RouterProcess] = super().get_queryset(request).annotate(live=counted)
        return processes
