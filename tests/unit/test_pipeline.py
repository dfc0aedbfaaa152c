"""The seam to psycopg (proxy/pipeline.py); what it does: ../integration/test_turn_faults.py."""

from __future__ import annotations

import psycopg
import pytest
from django.db import connection

from proxy.pipeline import SEAMS, seam_faults
from routerproject.checks import psycopg_sends_in_sets


def test_the_seams_are_as_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the installed version."""
    monkeypatch.setattr(connection, "vendor", "postgresql")
    assert seam_faults() == []
    assert psycopg_sends_in_sets(None) == []


@pytest.mark.parametrize("name", SEAMS)
def test_a_seam_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The router does not start: what is held would never be sent, or sent without its Sync."""
    (owner,) = (each for each in psycopg.Pipeline.__mro__ if name in vars(each))
    monkeypatch.delattr(owner, name)
    assert psycopg_sends_in_sets(None) == []  # with SQLite psycopg is not even loaded
    monkeypatch.setattr(connection, "vendor", "postgresql")
    (message,) = psycopg_sends_in_sets(None)
    assert (message.id, name in message.msg) == ("router.E004", True)
