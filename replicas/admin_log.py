"""What the admin's log says of an act: from what to what. Who and when Django knows.

LoggedAdmin is mixed into the admins whose forms people edit; actions use `from_to`. The log of all acts is shown here,
for reading. Acts of commands and files have no user and are not in it.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime

NOTHING = "none"


def in_words(value: object) -> str:
    """“yes”, “1.5”, “none” where nothing is."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def from_to(what: str, old: object, new: object) -> str:
    """“State: active → draining”; "" where both are the same."""
    before, after = in_words(old), in_words(new)
    return f"{what}: {before} → {after}" if before != after else ""


class LoggedAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # no subscript at run time
    """A form's entry in the log names each field that it changed, with both values."""

    def get_paginator(self, request: HttpRequest, queryset: Any, *args: Any, **kwargs: Any) -> Any:
        if queryset.model is LogEntry:  # the page of one row's history: Django has the oldest first
            queryset = queryset.order_by("-action_time", "-id")
        return super().get_paginator(request, queryset, *args, **kwargs)

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        """Called after the row was written; `form.initial` is what it was before."""
        labels = {name: form.fields[name].label or name for name in form.changed_data if name in form.fields}
        new = {name: getattr(form.instance, name) for name in labels}
        if add:
            said = [f"{label}: {in_words(new[name])}" for name, label in labels.items()]
            return f"Added. {'; '.join(said)}."
        changes = [from_to(label, form.initial.get(name), new[name]) for name, label in labels.items()]
        return f"{'; '.join(filter(None, changes)) or 'Saved, nothing changed'}."


class KindFilter(admin.RelatedOnlyFieldListFilter):
    title = "what it was done to"
    include_empty_choice = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = KindFilter.title  # Django's is the field's


@admin.register(LogEntry)
class LogEntryAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # no subscript at run time
    """All that was acted here, by whom: for reading."""

    list_display = ("time", "user", "kind", "what", "said")
    list_display_links = None
    list_filter = ("action_flag", ("content_type", KindFilter), "user")
    list_select_related = ("user", "content_type")
    search_fields = ("object_repr", "change_message", "user__username")
    search_help_text = "By what it was done to, its words, or who did it."
    date_hierarchy = "action_time"
    actions = None

    @admin.display(description="Time (UTC)", ordering="action_time")
    def time(self, entry: LogEntry) -> SafeString:
        return format_html('<span class="moment">{}</span>', f"{localtime(entry.action_time):%Y-%m-%d %H:%M:%S}")

    @admin.display(description="To", ordering="content_type")
    def kind(self, entry: LogEntry) -> str:
        return entry.content_type.name if entry.content_type else NOTHING

    @admin.display(description="Named", ordering="object_repr")
    def what(self, entry: LogEntry) -> SafeString | str:
        page = None if entry.is_deletion() else entry.get_admin_url()
        return format_html('<a href="{}">{}</a>', page, entry.object_repr) if page else entry.object_repr

    @admin.display(description="What")
    def said(self, entry: LogEntry) -> str:
        return entry.get_change_message() or str(entry)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return super().changelist_view(request, {"title": "Acts"} | (extra_context or {}))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: LogEntry | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: LogEntry | None = None) -> bool:
        return False
