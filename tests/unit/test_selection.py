"""The order in which replicas are tried (contract A2)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.selection import Candidate, rank

candidates = st.lists(
    st.builds(
        Candidate,
        id=st.integers(1, 50),
        name=st.just("r"),
        url=st.just("http://r"),
        primary=st.booleans(),
        available=st.booleans(),
        stale=st.booleans(),
    ),
    unique_by=lambda candidate: candidate.id,
    max_size=12,
)


def candidate(number: int, *, primary: bool = False, available: bool = True, stale: bool = False) -> Candidate:
    return Candidate(number, f"r{number}", f"http://r{number}", primary, available, stale)


def test_the_primary_comes_first_then_insertion_order() -> None:
    """Where nothing else decides, the replica that was added first is tried first."""
    order = rank([candidate(3), candidate(1), candidate(2, primary=True)])
    assert [found.id for found in order] == [2, 1, 3]


def test_an_unavailable_replica_is_never_offered() -> None:
    """Not even where it is the primary, or the only one."""
    assert rank([candidate(1, primary=True, available=False)]) == []


def test_a_fresh_replica_comes_before_a_stale_primary() -> None:
    """A stale word still stands, but behind one that was seen lately (design, decision 12)."""
    order = rank([candidate(1, primary=True, stale=True), candidate(2)])
    assert [found.id for found in order] == [2, 1]


@given(candidates)
def test_every_available_candidate_is_ranked_once(given_candidates: list[Candidate]) -> None:
    """No replica that could take a session is left out, none is tried twice."""
    order = rank(given_candidates)
    assert sorted(found.id for found in order) == sorted(c.id for c in given_candidates if c.available)
