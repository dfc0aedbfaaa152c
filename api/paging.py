"""Pages of rows by a cursor, which is the last row's id: as cheap at the end of a long table as at its beginning.

New rows disturb nobody who turns pages, and whoever polls goes on where they were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from django.db.models import QuerySet
from ninja import Schema
from pydantic import Field

from api.problems import Problem, wrong

MOST = 500
LONGEST_CURSOR = 18


class PageWanted(Schema):
    limit: int = Field(50, ge=1, le=MOST)
    cursor: str = Field("", max_length=LONGEST_CURSOR, description="`next` of the page before")


class Ordered(PageWanted):
    order: Literal["newest", "oldest"] = Field(
        "newest", description="oldest: `next` is never null once there were rows, so that it can be polled"
    )


def page(rows: QuerySet[Any], wanted: PageWanted, show: Callable[[Any], Any], *, newest: bool) -> dict[str, Any]:
    """`rows` in the order of their ids from the cursor on, as `show` shows them."""
    if wanted.cursor:
        if not (wanted.cursor.isascii() and wanted.cursor.isdecimal()):
            raise Problem(422, "Some of what was sent cannot be used.", [wrong("cursor", wanted.cursor, "give `next`")])
        at = int(wanted.cursor)
        rows = rows.filter(pk__lt=at) if newest else rows.filter(pk__gt=at)
    found = list(rows.order_by("-pk" if newest else "pk")[: wanted.limit + 1])
    shown, more = found[: wanted.limit], len(found) > wanted.limit
    last = str(shown[-1].pk) if shown else wanted.cursor or None
    keep = more or getattr(wanted, "order", "newest") == "oldest"
    return {"items": [show(row) for row in shown], "next": last if keep else None}
