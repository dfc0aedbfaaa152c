"""A file of replicas and the addresses in it (replicas/config.py, rules.py): whatever a template makes of it."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.uri import parse_uri

from replicas import rules
from replicas.addresses import literal, never
from replicas.config import BLOCKS, REPLICA, ConfigRefused, FileConfig, parse
from tests.unit.test_config import GOOD

KEYS = ["router", "replicas", "host", "port", *BLOCKS, *(key for keys in BLOCKS.values() for key in keys), *REPLICA]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.binary(max_size=6)
    | st.dates() | st.datetimes() | st.sampled_from(["http://a:1", "http://a", "random", "draining", "none", "/health"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6) | st.integers(), inner, max_size=6)
    ),
    max_leaves=12,
)


@st.composite
def nearly_files(draw: st.DrawFn) -> str:
    """The contract's example with values, keys and whole blocks replaced."""
    document: Any = yaml.safe_load(GOOD)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(
            st.sampled_from([document, document["router"], *document["router"].values()])
            if isinstance(document.get("router"), dict)
            else st.just(document)
        )
        if isinstance(place, list):
            place.append(draw(VALUES))
        elif isinstance(place, dict):
            place[draw(st.sampled_from(KEYS) | st.text(max_size=6))] = draw(VALUES)
    return yaml.safe_dump(document, allow_unicode=draw(st.booleans()))


# Pieces of YAML's own grammar: tags, anchors, merges, and scalars that are read as something else.
PIECES = st.lists(
    st.sampled_from(
        [
            "router:", "replicas:", "  ", "\n", "- ", "url: ", "http://a:1", ": ", "{", "}", "[", "]", ", ",
            "&a ", "*a", "<<: ", "!!int ", "!!float ", "!!bool ", "!!null ", "!!timestamp ", "!!binary ", "!!set ",
            "!!omap ", "!!pairs ", "!!str ", "!!python/name:os.system ", "!x ", "? ", "| ", "> ", "---\n", "...\n",
            "%YAML 1.1\n", "#", "'", '"', "\\", "\t", "\0", "2001-01-01 00:00:00 +99:99", "2001-13-01", "0x", "0b2",
            "1:99", ".inf", ".nan", "1e999", "~", "=", "port: ", "\u0085", "\u2028", "\ufeff", "\ud800",
        ]
    ),
    max_size=14,
).map("".join)  # fmt: skip


def check(text: str) -> None:
    """It loads with values that keep the rules, or is refused in lines of which each names a key, or the file."""
    problems: list[str] = []
    try:
        config = parse(text)
    except ConfigRefused as refused:
        problems, warnings = refused.problems, refused.warnings
    else:
        assert_keeps_the_rules(config)
        warnings = config.warnings
    for problem in problems:
        assert re.match(r"(router[.:\[]|the file is )", problem), problem
        assert len(problem) < 1200
    for line in (*problems, *warnings):
        assert_is_a_line(line)


def assert_is_a_line(text: str) -> None:
    assert text.isprintable(), repr(text)


def assert_keeps_the_rules(config: FileConfig) -> None:
    assert config.replicas
    for replica in config.replicas:
        assert "url" in replica
        for key, value in replica.items():
            if value is not None:
                assert REPLICA[key](value) == value
    for block, values in config.blocks.items():
        of_field = dict(BLOCKS[block].values())
        assert all(of_field[name](value) == value for name, value in values.items())
    assert 1 <= config.port <= 65_535
    assert_is_a_line(config.host)


@given(st.text(max_size=60) | PIECES)
@example("!!int ''")
@example("!!float ''")
@example("!!bool x")
@example("!!timestamp x")
@example("!!set 0")
@example("router: {replicas: [{url: 'http://a:1'}], 'a\nb': 1}")
def test_any_text_loads_or_is_refused_by_key(text: str) -> None:
    """Never an exception of another kind, whatever YAML makes of the text."""
    check(text)


@given(PIECES.map(lambda piece: f"router:\n  replicas:\n    - url: http://a:1\n      name: {piece}\n") | nearly_files())
def test_a_file_that_is_nearly_right_loads_or_is_refused_by_key(text: str) -> None:
    """With every value kept or named."""
    check(text)


HOSTS = st.text(max_size=20) | st.ip_addresses().map(str) | st.ip_addresses(v=6).map(lambda address: f"[{address}]")
ENDS = st.sampled_from(
    ["", "/", ":80", ":8000", ":0", ":", "@b", "/x", "?x", "#x", "\\@b", "%00", ".", "..", "\t", "%2e"]
)


@given(st.sampled_from(["http://", "https://", "HTTP://", "http:", "//", ""]), HOSTS, ENDS | st.text(max_size=6))
@example("http://", "a", "\\@169.254.169.254")
@example("http://", "0", "")
@example("http://", "10.0.0.256", "")
@example("http://", "010.0.0.1", "")
def test_an_address_is_the_same_for_all_who_read_it(scheme: str, host: str, end: str) -> None:
    """Who checks, who probes and who opens sessions must not see different hosts in one URL; and it stays as it is."""
    try:
        url = rules.replica_url(scheme + host + end)
    except rules.RuleBroken as broken:
        assert_is_a_line(str(broken))
        return
    assert rules.replica_url(url) == url
    named = urlsplit(url)
    assert named.hostname is not None
    probed, opened = httpx.URL(url), parse_uri("ws" + url.removeprefix("http"))
    assert named.hostname == probed.raw_host.decode() == opened.host
    port = named.port or (443 if named.scheme == "https" else 80)
    assert port == opened.port == (probed.port or (443 if probed.scheme == "https" else 80))
    address = literal(named.hostname)
    assert address is None or not never(address)
