"""Below /api/: version 1, and for all else a problem that says where its description is."""

from __future__ import annotations

from django.urls import path, re_path

from api.problems import not_found
from api.v1 import api

urlpatterns = [
    path("v1/", api.urls),
    re_path("", not_found),
]
