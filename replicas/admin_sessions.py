"""What the replicas' admin says of live sessions: how many each has, and what an edit or a deletion means for them.

Mixed into ReplicaAdmin. A deleted replica that sessions are still on is listed last, and is for reading. The sessions
themselves are the proxy's: it is asked for their numbers by a signal, once a page.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.admin.views.main import ChangeList
from django.db.models import F, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.safestring import SafeString

from replicas import wording
from replicas.admin_display import ago
from replicas.models import Replica, ReplicaQuerySet, ReplicaState
from replicas.signals import live_sessions


def count_live(replicas: Iterable[Replica], request: HttpRequest | None = None) -> None:
    """Give each row its number of live sessions, as `live`; and where they are listed, for who may see it."""
    counted = live_sessions()
    # By name: the page belongs to a room above this one.
    listed = request and request.user.has_perm("proxy.view_session") and reverse("admin:proxy_session_changelist")
    for replica in replicas:
        replica.live = counted.get(replica.pk, 0)  # type: ignore[attr-defined]  # for this page
        replica.listed = f"{listed}?replica={replica.pk}&state=live" if listed else ""  # type: ignore[attr-defined]


class ReplicaList(ChangeList):
    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Replica]) -> list[Any]:
        # Whatever the list is sorted by, deleted ones come last.
        return [F("deleted_at").asc(nulls_first=True), *super().get_ordering(request, queryset)]

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        count_live(self.result_list, request)


class SessionsAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # no subscript at run time
    """The parts of ReplicaAdmin that are about sessions."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ReplicaList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Replica | None:
        replica: Replica | None = super().get_object(request, object_id, from_field)
        if replica is not None:
            count_live([replica], request)
        return replica

    # --- deleted ones are for reading ---

    def has_change_permission(self, request: HttpRequest, obj: Replica | None = None) -> bool:
        return not (obj and obj.deleted_at) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Replica | None = None) -> bool:
        return not (obj and obj.deleted_at) and super().has_delete_permission(request, obj)

    def action_checkbox(self, obj: Replica) -> SafeString:
        return SafeString("") if obj.deleted_at else super().action_checkbox(obj)

    def response_action(self, request: HttpRequest, queryset: Any, *args: Any) -> HttpResponse | None:
        assert isinstance(queryset, ReplicaQuerySet)
        answer = super().response_action(request, queryset.kept(), *args)
        one = request.POST.get("from_page", "")
        if isinstance(answer, HttpResponseRedirect) and one.isdecimal():
            return HttpResponseRedirect(reverse("admin:replicas_replica_change", args=[one]))
        return answer

    # --- before an edit or a deletion: how many sessions is it about? ---

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        replica: Replica | None = kwargs.get("obj")
        if replica is not None and replica.pk:
            context["about_sessions"] = _about(replica, edits=self.has_change_permission(request, replica))
        return super().render_change_form(request, context, *args, **kwargs)

    def render_delete_form(self, request: HttpRequest, context: Any) -> TemplateResponse:
        context["about_sessions"] = _deletion_of([context["object"]])
        page: TemplateResponse = super().render_delete_form(request, context)  # type: ignore[assignment]  # the stubs
        return page

    @admin.action(description="Delete: sessions go on to their end", permissions=["delete"])
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[Replica]) -> HttpResponse | None:
        page: HttpResponse | None = delete_selected(self, request, queryset)
        if isinstance(page, TemplateResponse) and page.context_data is not None:
            page.context_data["about_sessions"] = _deletion_of(queryset)
        return page

    # --- after it: what became of them ---

    def save_model(self, request: HttpRequest, obj: Replica, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if change and obj.state == ReplicaState.DRAINING and {"state", "drain_deadline_seconds"} & {*form.changed_data}:
            self.say_drained(request, [obj])

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        """Before it is done: with the address and the state, for the row may be gone by then."""
        count_live(queryset)
        for replica in queryset:
            was = f"URL: {replica.url} → none; state: {replica.state} → deleted; {wording.deleted(replica.live)}."
            LogEntry.objects.log_actions(request.user.pk, [replica], DELETION, was, single_object=True)  # type: ignore[call-overload]  # signed in

    def delete_model(self, request: HttpRequest, obj: Replica) -> None:
        self._delete(request, [obj])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Replica]) -> None:
        self._delete(request, list(queryset))

    def _delete(self, request: HttpRequest, replicas: list[Replica]) -> None:
        Replica.objects.filter(pk__in=[replica.pk for replica in replicas]).delete()
        left = Replica.everything.deleted().filter(pk__in=[replica.pk for replica in replicas])
        count_live(left)
        for replica in left:
            # “Replica” first: Django makes the first letter of a message a capital, and names are not ours to change.
            self.message_user(request, f"Replica {replica}: deleted, {wording.deleted(replica.live)}.")  # type: ignore[attr-defined]

    def say_drained(self, request: HttpRequest, replicas: Iterable[Replica], state: str = "draining") -> None:
        """“Replica b: draining, keeps 7 sessions.”"""
        counted = live_sessions()
        said = [
            f"Replica {replica}: {state}, {wording.drained(counted.get(replica.pk, 0), replica.drain_deadline_seconds)}"
            for replica in replicas
        ]
        self.message_user(request, ". ".join(said) + ".", messages.SUCCESS)


def _about(replica: Replica, *, edits: bool) -> str:
    """What is under way with its sessions, and to who `edits` what saving does to them."""
    live: int = replica.live  # type: ignore[attr-defined]
    if replica.deleted_at:
        return (
            f"Deleted {ago(replica.deleted_at)}; {wording.deleted(live)}, and is gone then. "
            "To use this server again, add a replica with its URL."
        )
    draining = live and replica.state == ReplicaState.DRAINING
    under_way = f"Draining: {wording.drained(live, replica.drain_deadline_seconds)}." if draining else ""
    return " ".join(filter(None, (under_way, wording.edited(live) if edits else "")))


def _deletion_of(replicas: Iterable[Replica]) -> str:
    counted = live_sessions()
    return wording.to_be_deleted({f"{replica}": counted.get(replica.pk, 0) for replica in replicas})
