"""What a caller gives of a replica, by the rules that the admin and the files have (replicas/rules.py).

Used by replicas.py. What is refused is a problem that names each field with its mend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError

from api.problems import Problem, wrong
from replicas import rules
from replicas.models import Replica

UNUSABLE = "Some of what was sent cannot be used."
MARKED = "another replica is the primary: leave this out, and make-primary moves the mark"


def _name(value: object) -> str:
    name = rules.replica_name(value)
    if name.isdecimal():
        raise rules.RuleBroken("must not be a number: that is an id")
    return name


RULES = {
    "url": rules.replica_url, "name": _name, "weight": rules.weight, "max_sessions": rules.max_sessions,
    "drain_deadline_seconds": rules.deadline,
}  # fmt: skip


def usable(values: dict[str, Any]) -> dict[str, Any]:
    """As they are stored. Raises Problem with every field that is wrong."""
    found, errors = dict[str, Any](), []
    for name, value in values.items():
        try:
            rule = RULES.get(name)
            found[name] = rule(value) if rule is not None and value is not None else value
        except rules.RuleBroken as broken:
            errors.append(wrong(name, value, str(broken)))
    if errors:
        raise Problem(422, UNUSABLE, errors)
    return found


def check(replica: Replica) -> None:
    """Raises Problem."""
    try:
        replica.full_clean(exclude=["name"] if not replica.name else None)
    except ValidationError as error:
        raise invalid(error, vars(replica)) from error


def invalid(error: ValidationError, values: Mapping[str, Any]) -> Problem:
    """A field of ours in `error` is what a caller may have written, or what goes with it. 409: another has that."""
    found = [(name, each) for name, some in error.error_dict.items() for each in some]
    errors = [wrong(name, values.get(name, ""), _mend(name, each)) for name, each in found]
    return Problem(409 if any(each.code == Replica.TAKEN for _, each in found) else 422, UNUSABLE, errors)


def _mend(field: str, error: ValidationError) -> str:
    # The model's own words name the admin's action.
    return MARKED if (field, error.code) == ("primary", Replica.TAKEN) else " ".join(error.messages)
