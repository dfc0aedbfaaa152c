"""The rules of contract A6, each for itself."""

from __future__ import annotations

import math

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicas import rules
from replicas.rules import RuleBroken


@pytest.mark.parametrize(
    ("given_url", "stored"),
    [
        ("http://streamer-a:8000", "http://streamer-a:8000"),
        ("http://streamer-a:8000/", "http://streamer-a:8000"),
        ("  HTTP://Streamer-A:8000 ", "http://streamer-a:8000"),
        ("http://a:80", "http://a:80"),
        ("http://a", "http://a"),
        ("https://a:443/", "https://a:443"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://10.0.0.1:1", "http://10.0.0.1:1"),
    ],
)
def test_a_url_is_normalised(given_url: str, stored: str) -> None:
    """No trailing slash, the port kept as written, the host in lower case."""
    assert rules.replica_url(given_url) == stored


BAD_URLS = {
    "no scheme": "streamer-a:8000",
    "ftp": "ftp://a",
    "ws": "ws://a:8000",
    "no host": "http://",
    "only a port": "http://:8000",
    "a path": "http://a/v1",
    "two slashes": "http://a//",
    "a query": "http://a?x=1",
    "an empty query": "http://a?",
    "a fragment": "http://a#x",
    "an empty fragment": "http://a/#",
    "user info": "http://user:pw@a",
    "an empty user": "http://@a",
    "port 0": "http://a:0",
    "port 65536": "http://a:65536",
    "no port behind :": "http://a:",
    "a word as port": "http://a:http",
    "a space": "http://a b",
    "a line break": "http://a\nb",
    "no : before the port": "http://[::1]8001",
    "a word behind an IPv6": "http://[::1]x:80",
    "a name in brackets": "http://[v1.a]:80",
    "half an IPv6": "http://[::1",
    "an IPv6 address of an interface": "http://[fe80::1%25eth0]",
    "letters outside ASCII": "http://münchen.example",
    "a comma": "http://a,b",
    "an empty label": "http://a..b",
    "a leading dash": "http://-a",
    "a number over 255": "http://10.0.0.256",
    "an octal number": "http://010.0.0.1:8000",
    "zeros in front": "http://10.0.0.001",
    "a label too long": "http://" + "a" * 64,
    "too long": "http://" + "a" * 300,
    "not text": 5,
    "nothing": None,
}


@pytest.mark.parametrize("case", BAD_URLS)
def test_a_url_that_is_no_address_of_a_server_is_refused(case: str) -> None:
    """With a message that says what to write."""
    with pytest.raises(RuleBroken) as broken:
        rules.replica_url(BAD_URLS[case])
    assert str(broken.value).startswith(("must", "is not"))


@given(st.text(max_size=80))
def test_any_text_is_refused_or_stays_the_same_when_normalised_again(text: str) -> None:
    """Normalising is idempotent, and never raises anything but RuleBroken."""
    for candidate in (text, f"http://{text}", f"https://host:{text}"):
        try:
            stored = rules.replica_url(candidate)
        except RuleBroken:
            continue
        assert rules.replica_url(stored) == stored
        assert stored in rules.spellings(stored)
        assert httpx.URL(stored).host  # what the prober's client makes of it


def test_the_default_port_makes_no_other_server() -> None:
    """http://a and http://a:80 are stored as written, but are one replica."""
    assert rules.same_replica("http://a") == rules.same_replica("http://a:80")
    assert rules.same_replica("https://a") == rules.same_replica("https://a:443")
    assert rules.same_replica("http://a") != rules.same_replica("https://a")
    assert set(rules.spellings("https://[::1]")) == {"https://[::1]", "https://[::1]:443"}
    assert rules.spellings("http://a:8000") == ("http://a:8000",)


@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan, math.inf, -math.inf, True, "1", None, 10**400])
def test_a_weight_is_a_finite_number_above_0(value: object) -> None:
    """Everything else is refused, `true` and text too."""
    with pytest.raises(RuleBroken):
        rules.weight(value)


@pytest.mark.parametrize("value", [0, -5, math.nan, math.inf, False, "5", None, 3601])
def test_seconds_are_above_0_and_at_most_an_hour(value: object) -> None:
    """Fractions are allowed, and nothing that is no number."""
    assert rules.seconds(0.25) == 0.25
    with pytest.raises(RuleBroken):
        rules.seconds(value)


@pytest.mark.parametrize("value", [0, -1, 1.5, 1.0, True, "3", None, 10**9])
def test_a_threshold_is_a_whole_number_from_1_on(value: object) -> None:
    """1.0 is no whole number in YAML either."""
    assert rules.threshold(1) == 1
    with pytest.raises(RuleBroken):
        rules.threshold(value)


@pytest.mark.parametrize("value", [0, 65_536, -1, 80.0, "80", True, None])
def test_a_port_is_a_whole_number_up_to_65535(value: object) -> None:
    """Contract A6."""
    assert rules.port(65_535) == 65_535
    with pytest.raises(RuleBroken):
        rules.port(value)


@pytest.mark.parametrize("value", ["health", "", "//health", "/a b", "/a#b", "/ä", "/" + "a" * 300, None, 5])
def test_a_health_path_begins_with_one_slash(value: object) -> None:
    """`//health` would be a host to some clients."""
    assert rules.health_path("/readyz?deep=1") == "/readyz?deep=1"
    with pytest.raises(RuleBroken):
        rules.health_path(value)


@pytest.mark.parametrize("value", ["yes", 1, 0, None])
def test_a_flag_is_true_or_false(value: object) -> None:
    """`primary: "no"` must not make a primary."""
    with pytest.raises(RuleBroken):
        rules.flag(value)


@pytest.mark.parametrize("value", ["", "  ", "a" * 64, "a\nb", 5, None])
def test_a_name_is_a_short_printable_text(value: object) -> None:
    """It stands in logs and in tables."""
    assert rules.replica_name("  gpu-1 ") == "gpu-1"
    with pytest.raises(RuleBroken):
        rules.replica_name(value)


@pytest.mark.parametrize("value", [-0.1, 3600.5, math.nan, math.inf, True, "30", None])
def test_a_pause_may_be_none_at_all(value: object) -> None:
    """0 s to an hour: slow start can be switched off."""
    assert (rules.pause(0), rules.pause(3600)) == (0, 3600)
    with pytest.raises(RuleBroken):
        rules.pause(value)


@pytest.mark.parametrize("value", [-1, 86_400.5, math.nan, False, "60", None])
def test_a_deadline_is_at_most_a_day(value: object) -> None:
    """0 s closes what is left at once."""
    assert (rules.deadline(0), rules.deadline(86_400)) == (0, 86_400)
    with pytest.raises(RuleBroken):
        rules.deadline(value)


@pytest.mark.parametrize(
    "value",
    ["", "None", "query", "query:", "query: a", "body:a", "cookie:a;b", "query:" + "a" * 81, "query:a\n", None, False],
)
def test_an_affinity_says_where_its_key_stands(value: object) -> None:
    """One place, and a name in it; or none."""
    for good in ("none", "query:user", "header:X-User-Id", "cookie:session.id"):
        assert rules.affinity(good) == good
    with pytest.raises(RuleBroken):
        rules.affinity(value)


@pytest.mark.parametrize("value", ["c", "", None, 1, ["a"], {}])
def test_one_of_takes_what_is_named(value: object) -> None:
    """And says what may be."""
    assert rules.one_of(["a", "b"])("a") == "a"
    with pytest.raises(RuleBroken, match="must be one of a, b"):
        rules.one_of(["a", "b"])(value)


@pytest.mark.parametrize("value", [-1, 1.0, True, "5", None, 10**9])
def test_a_length_is_a_whole_number_from_0_on(value: object) -> None:
    """0 is a line in which nobody waits."""
    assert rules.length(0) == 0
    with pytest.raises(RuleBroken):
        rules.length(value)
