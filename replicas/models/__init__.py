"""Which replicas exist, and are they healthy? The tables of this room.

intent.py and settings.py are written by people, observed.py by the prober and by placement. Read at every placement.
The rules of each field are in rules.py. Everything is imported from here; migrations name validators and fields here
too.
"""

from replicas.models.choices import ClientAuth, Policy, ReplicaState
from replicas.models.fields import (
    CountField,
    validate_affinity,
    validate_deadline,
    validate_health_path,
    validate_length,
    validate_limit,
    validate_max_sessions,
    validate_name,
    validate_pause,
    validate_seconds,
    validate_threshold,
    validate_url,
    validate_weight,
)
from replicas.models.intent import Replica, ReplicaQuerySet
from replicas.models.observed import HealthTransition, PlacementRecord, ProberLease, ReplicaHealth
from replicas.models.settings import RouterSettings

__all__ = [
    "ClientAuth",
    "CountField",
    "HealthTransition",
    "PlacementRecord",
    "Policy",
    "ProberLease",
    "Replica",
    "ReplicaHealth",
    "ReplicaQuerySet",
    "ReplicaState",
    "RouterSettings",
    "validate_affinity",
    "validate_deadline",
    "validate_health_path",
    "validate_length",
    "validate_limit",
    "validate_max_sessions",
    "validate_name",
    "validate_pause",
    "validate_seconds",
    "validate_threshold",
    "validate_url",
    "validate_weight",
]
