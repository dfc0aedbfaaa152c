"""A replica's form in the admin: of an edited replica it changes what the operator changed since it was shown.

Used by admin.py. An action, another operator or a file may have changed the row while the form stood open; what the
operator left as they saw it is none of the form's business.
"""

from __future__ import annotations

from typing import Any

from django import forms

from replicas import rules
from replicas.models import Replica


class ReplicaForm(forms.ModelForm):  # type: ignore[type-arg]  # no subscript at run time
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            # The page carries what was shown, so that `changed_data` means: since then.
            field.show_hidden_initial = self.instance.pk is not None

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        replica: Replica = self.instance
        if replica.pk is None:
            return values
        for name in values.keys() - set(self.changed_data):
            values[name] = getattr(replica, name)
        # A name that nobody gave is the URL's; it would be that of another server.
        if "url" in self.changed_data and values.get("name") == rules.default_name(replica.url):
            values["name"] = ""
            self.changed_data.append("name")
        return values
