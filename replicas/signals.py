"""What this room lets the rooms above it know, or asks of them; they are never imported here."""

from collections.abc import Collection

from django.db import DEFAULT_DB_ALIAS
from django.dispatch import Signal

# Sent by the prober about once an hour, in its database thread: delete what is older than `before` (a datetime). A
# receiver deletes a few hundred rows at most and returns how many; it is sent again until all return none, so that the
# prober's other work in that thread, its beat above all, waits for no long deletion.
pruning = Signal()

# Sent where people see or decide about replicas: how many sessions are live on each? A receiver returns a dict, replica
# id → number, of those that have any, in the database `using`. Ask through `live_sessions`.
counting_sessions = Signal()


def live_sessions(using: str = DEFAULT_DB_ALIAS) -> dict[int, int]:
    """How many sessions are live on each replica that has any, by its id. One query."""
    found: dict[int, int] = {}
    for _, counts in counting_sessions.send(sender=None, using=using):
        found.update(counts)  # type: ignore[arg-type]  # of a signal it is not known what its receivers return
    return found


# Asked before replicas' rows are deleted: those of `ids` whom very many rows name, each or all together; a set.
asking_for_long_histories = Signal()


def long_histories(ids: Collection[int], using: str = DEFAULT_DB_ALIAS) -> set[int]:
    found: set[int] = set()
    for _, some in asking_for_long_histories.send(sender=None, ids=ids, using=using):
        found.update(some)  # type: ignore[arg-type]  # Django's stubs say that every receiver returns text
    return found


# Sent by /readyz: a receiver returns what makes this process unready, in a few words, or None.
asking_what_is_missing = Signal()


def missing() -> list[str]:
    """What the rooms above this one say is missing for new sessions."""
    return [str(what) for _, what in asking_what_is_missing.send(sender=None) if what]
