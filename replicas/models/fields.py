"""What the tables are made of: validators that hold the rules of rules.py, a field, a table of one row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

from replicas import rules


def _validator(rule: Callable[[object], object]) -> Callable[[Any], None]:
    def validate(value: Any) -> None:
        try:
            rule(value)
        except rules.RuleBroken as broken:
            raise ValidationError(f"“%(value)s” {broken}.", params={"value": value}) from broken

    return validate


# Named functions: migrations refer to validators by name.
def validate_url(value: Any) -> None:
    _validator(rules.replica_url)(value)


def validate_name(value: Any) -> None:
    _validator(rules.replica_name)(value)


def validate_weight(value: Any) -> None:
    _validator(rules.weight)(value)


def validate_max_sessions(value: Any) -> None:
    _validator(rules.max_sessions)(value)


def validate_seconds(value: Any) -> None:
    _validator(rules.seconds)(value)


def validate_threshold(value: Any) -> None:
    _validator(rules.threshold)(value)


def validate_health_path(value: Any) -> None:
    _validator(rules.health_path)(value)


def validate_affinity(value: Any) -> None:
    _validator(rules.affinity)(value)


def validate_length(value: Any) -> None:
    _validator(rules.length)(value)


def validate_limit(value: Any) -> None:
    _validator(rules.limit)(value)


def validate_pause(value: Any) -> None:
    _validator(rules.pause)(value)


def validate_deadline(value: Any) -> None:
    _validator(rules.deadline)(value)


class CountField(models.PositiveIntegerField):  # type: ignore[type-arg]  # no subscript at run time
    """A whole number. Django's own field silently makes 1 of 1.5."""

    def to_python(self, value: Any) -> Any:
        if isinstance(value, float) and not value.is_integer():
            raise ValidationError(self.error_messages["invalid"], code="invalid", params={"value": value})
        return super().to_python(value)


class Singleton(models.Model):
    """A table with one row, whose id is 1."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)

    class Meta:
        abstract = True
