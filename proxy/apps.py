"""The data plane: put one client's session on one replica, and keep it there."""

from django.apps import AppConfig


class ProxyConfig(AppConfig):
    name = "proxy"
    verbose_name = "Sessions"

    def ready(self) -> None:
        from proxy import receivers  # noqa: F401  (connects them)
