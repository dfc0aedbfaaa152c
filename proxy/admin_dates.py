"""The way down through the days of the history, above the list of sessions.

Django's own looks at every row that matches to find the days on which there is any: with a million ended sessions
that takes longer than the database may. Here the days from the oldest to the newest are offered, which an index knows.
What a choice filters is Django's (ModelAdmin.date_hierarchy).
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest
from django.utils.formats import date_format
from django.utils.timezone import localtime

from proxy.admin_display import count_carried
from proxy.models import Session

FIELD = "opened_at"


def days(first: date, last: date, year: int, month: int) -> Iterator[date]:
    """Those of the month that are from `first` to `last`."""
    for number in range(1, monthrange(year, month)[1] + 1):
        if first <= (day := date(year, month, number)) <= last:
            yield day


def months(first: date, last: date, year: int) -> Iterator[date]:
    """The first day of each month of the year with days from `first` to `last`."""
    for number in range(1, 13):
        month = date(year, number, 1)
        if (first.year, first.month) <= (month.year, month.month) <= (last.year, last.month):
            yield month


class SessionList(ChangeList):
    """The list with the traffic of what is live, and the days to choose from."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not (self.query or self.has_active_filters or any(name.startswith(FIELD) for name in self.params)):
            self.full_result_count = self.result_count  # so that the page does not offer to show all
        count_carried(self.result_list)

    def drill_down(self) -> dict[str, Any]:
        """For the template admin/date_hierarchy.html."""
        ends = [Session.objects.order_by(order).values_list(FIELD, flat=True).first() for order in (FIELD, f"-{FIELD}")]
        if ends[0] is None or ends[1] is None:
            return {"show": False}
        first, last = (localtime(end).date() for end in ends if end is not None)
        chosen = {name: int(value) for name in ("year", "month", "day") if (value := self._asked(name))}
        if not chosen and first.year == last.year:
            chosen = {"year": first.year} | ({"month": first.month} if first.month == last.month else {})
        match chosen:
            case {"year": year, "month": month, "day": day}:
                at = date(year, month, day)
                return self._shown(
                    [self._choice("MONTH_DAY_FORMAT", at)], date_format(at, "F Y"), year=year, month=month
                )
            case {"year": year, "month": month}:
                found = days(first, last, year, month)
                return self._shown(
                    [self._choice("MONTH_DAY_FORMAT", d, year=year, month=month, day=d.day) for d in found],
                    str(year),
                    year=year,
                )
            case {"year": year}:
                found = months(first, last, year)
                return self._shown(
                    [self._choice("YEAR_MONTH_FORMAT", m, year=year, month=m.month) for m in found], "All dates"
                )
        years = range(first.year, last.year + 1)
        return {"show": True, "choices": [self._choice("Y", date(year, 1, 1), year=year) for year in years]}

    def _asked(self, name: str) -> str | None:
        value: str | None = self.params.get(f"{FIELD}__{name}")
        return value

    def _shown(self, choices: list[dict[str, str]], back: str, **to: int) -> dict[str, Any]:
        return {"show": True, "choices": choices, "back": {"title": back, "link": self._link(to)}}

    def _choice(self, style: str, at: date, **to: int) -> dict[str, str]:
        return {"title": date_format(at, style)} | ({"link": self._link(to)} if to else {})

    def _link(self, to: Mapping[str, int]) -> str:
        return self.get_query_string({f"{FIELD}__{name}": value for name, value in to.items()}, [f"{FIELD}__"])
