"""Which page answers which address. The stream paths answer plain HTTP too: with what they are for."""

from django.conf import settings
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView

from proxy.views import upgrade_required

handler500 = "routerproject.faults.failed"

urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/", admin.site.urls),
    path("dashboard/", include("dashboard.urls")),
    path("api/", include("api.urls")),
    path("", include("dashboard.urls_metrics")),
    path("", include("replicas.urls")),
    path("", include("demo.urls")),
    path("favicon.ico", RedirectView.as_view(url=f"{settings.STATIC_URL}demo/favicon.svg")),
    *(path(stream_path.removeprefix("/"), upgrade_required) for stream_path in settings.ROUTER_STREAM_PATHS),
]
