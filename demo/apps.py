"""The demo: streaming replicas that need no GPU, and a player page. Imports no other room."""

from django.apps import AppConfig


class DemoConfig(AppConfig):
    name = "demo"
    verbose_name = "Demo"
