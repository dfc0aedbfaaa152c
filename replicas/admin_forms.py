"""Forms of the admin that change of a row what the operator changed since they were shown.

Used by admin.py. An action, another operator or a file may have changed the row while the form stood open; what the
operator left as they saw it is none of the form's business.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import FloatField
from django.http import HttpRequest

from replicas import admin_help, rules
from replicas.admin_log import LoggedAdmin
from replicas.models import Replica


class SinceShownForm(forms.ModelForm):  # type: ignore[type-arg]  # no subscript at run time
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            # The page carries what was shown, so that `changed_data` means: since then.
            field.show_hidden_initial = self.instance.pk is not None

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or self.cleaned_data
        if self.instance.pk is not None:
            values |= {name: getattr(self.instance, name) for name in values.keys() - set(self.changed_data)}
        return values


class ReplicaForm(SinceShownForm):
    class Meta:
        help_texts = admin_help.REPLICA
        labels = admin_help.REPLICA_LABELS

    def clean(self) -> dict[str, Any]:
        values, replica = super().clean(), self.instance
        assert isinstance(replica, Replica)
        # A name that nobody gave is the URL's: it would be another server's.
        if replica.pk and "url" in self.changed_data and values.get("name") == rules.default_name(replica.url):
            values["name"] = ""
            self.changed_data.append("name")
        return values


class SettingsForm(SinceShownForm):
    class Meta:
        help_texts = admin_help.SETTINGS
        labels = admin_help.SETTINGS_LABELS


class PlainNumber(forms.NumberInput):
    """5, not 5.0: as people write it."""

    def format_value(self, value: Any) -> str | None:
        return f"{value:.12g}" if isinstance(value, float) else super().format_value(value)


class SinceShownAdmin(LoggedAdmin):
    form = SinceShownForm
    formfield_overrides = {FloatField: {"widget": PlainNumber}}

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Of an edited row only what the form changed: the rest may change between its check and this."""
        if change:
            obj.save(update_fields=form.changed_data)
        else:
            super().save_model(request, obj, form, change)
