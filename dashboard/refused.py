"""PURE. What a request to the dashboard gets where it is refused: a status and a sentence for people."""

from __future__ import annotations


class Refused(Exception):
    """`status`: of HTTP; `said` names the field, the value and what is allowed, where it is one of those."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status, self.said = status, said
