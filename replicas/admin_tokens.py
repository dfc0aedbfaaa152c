"""Tokens in the admin: made when their row is added, and shown on the page that follows, once.

Mixed in by the admins of the rooms above. Only a digest is stored; the token is in no message, session or log.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.cache import add_never_cache_headers
from django.utils.text import capfirst

from replicas import tokens
from replicas.admin_forms import SinceShownAdmin


class ShownOnceAdmin(SinceShownAdmin):
    """For a model with `digest`, `beginning` and `kind` (one of tokens.py). `help_texts`: of its form's fields."""

    help_texts: dict[str, str] = {}

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **{"help_texts": self.help_texts} | kwargs)

    @admin.display(description="State")
    def state(self, token: Any) -> str:
        if not token.enabled:
            return "off"
        return "in use" if token.usable(timezone.now()) else "expired"

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        # What follows is the page that shows the token, whichever of them were pressed.
        context |= {"show_save_and_continue": False, "show_save_and_add_another": False}
        return super().render_change_form(request, context, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if not change:
            obj.shown_once = tokens.new_token(obj.kind)
            obj.digest, obj.beginning = tokens.digest(obj.shown_once), tokens.beginning(obj.shown_once)
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": f"{capfirst(obj._meta.verbose_name)} “{obj}”",
            "opts": self.opts,
            "object": obj,
            "token": obj.shown_once,
        }
        response = TemplateResponse(request, "admin/token_shown.html", context)
        add_never_cache_headers(response)
        return response

    def response_change(self, request: HttpRequest, obj: Any) -> HttpResponse:
        # "Save as new" and the like have nothing to show: a token is made by adding one.
        messages.success(request, f"“{obj}” is changed; its token is the same.")
        return self.response_post_save_change(request, obj)
