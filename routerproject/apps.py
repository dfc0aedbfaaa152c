"""The project itself as an app: its checks, and its changes to the look of the admin (templates/, static/)."""

from django.apps import AppConfig


class RouterProjectConfig(AppConfig):
    name = "routerproject"
    verbose_name = "Router"

    def ready(self) -> None:
        from routerproject import checks, signin  # noqa: F401  (they register what they have)
