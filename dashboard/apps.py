"""What operators and machines look at: the live page, its WebSocket, acts on the spot."""

from django.apps import AppConfig


class DashboardConfig(AppConfig):
    name = "dashboard"
    verbose_name = "Dashboard"
