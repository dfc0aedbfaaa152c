"""The control plane: which replicas exist, and are they healthy?"""

from django.apps import AppConfig


class ReplicasConfig(AppConfig):
    name = "replicas"
    verbose_name = "Replicas"
