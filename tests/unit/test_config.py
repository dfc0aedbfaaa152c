"""The config file of contract A6: everything it refuses, by key and value."""

from __future__ import annotations

import pytest

from replicas.config import ConfigRefused, parse

GOOD = """
router:
  host: 0.0.0.0
  port: 9000
  replicas:
    - url: http://streamer-a:8000
      primary: true
      name: a
      weight: 1.0
    - url: http://streamer-b:8000
  health_check:
    path: /health
    interval_seconds: 5
    timeout_seconds: 2
    failure_threshold: 3
    recovery_threshold: 2
"""


def replicas(*entries: str, rest: str = "") -> str:
    return "router:\n  replicas:\n" + "".join(f"    - {entry}\n" for entry in entries) + rest


A = "{url: 'http://a'}"
UNKNOWN = "  prot: 1\n  balancing: {polcy: random}\n  queue: {length: 5}\nextra: 1\n"
REFUSED = {
    "no router": ("replicas: []", "router: missing"),
    "router is a list": ("router: []", "router: [] is not a mapping"),
    "router is a number": ("router: 5", "router: 5 is not a mapping"),
    "router is empty": ("router:", "router: None is not a mapping"),
    "empty file": ("", "router: missing"),
    "no replicas": ("router: {port: 9000}", "router.replicas: missing"),
    "replicas empty": ("router: {replicas: []}", "router.replicas: [] is empty"),
    "replicas no list": ("router: {replicas: {url: x}}", "router.replicas: {'url': 'x'} is not a list"),
    "entry no mapping": (replicas("5"), "router.replicas[0]: 5 must be a mapping"),
    "entry without url": (replicas("{name: a}"), "router.replicas[0]: {'name': 'a'} lacks `url`"),
    "url scheme": (replicas("{url: 'ftp://a'}"), "router.replicas[0].url: 'ftp://a' must begin with http://"),
    "url path": (replicas("{url: 'http://a/x'}"), "router.replicas[0].url: 'http://a/x' must not have a path"),
    "url query": (replicas("{url: 'http://a?x'}"), "router.replicas[0].url: 'http://a?x' must not have a query"),
    "url fragment": (replicas("{url: 'http://a#x'}"), "router.replicas[0].url: 'http://a#x' must not have a fragment"),
    "url user": (replicas("{url: 'http://u:p@a'}"), "must not contain user info"),
    "url link-local": (
        replicas("{url: 'http://0xa9fea9fe:80'}"),
        "router.replicas[0].url: 'http://0xa9fea9fe:80' must not have a metadata address (169.254.169.254); give the",
    ),
    "url number": (replicas("{url: 5}"), "router.replicas[0].url: 5 must be text"),
    "duplicate": (replicas(A, "{url: 'http://A/'}"), "router.replicas[1].url: 'http://a' is a duplicate of"),
    "duplicate by port": (replicas(A, "{url: 'http://a:80'}"), "router.replicas[1].url: 'http://a:80' is a duplicate"),
    "two primaries": (
        replicas("{url: 'http://a', primary: true}", "{url: 'http://b', primary: true}"),
        "router.replicas[0].primary, router.replicas[1].primary: true more than once",
    ),
    "primary no flag": (replicas("{url: 'http://a', primary: 'no'}"), "router.replicas[0].primary: 'no' must be true"),
    "weight 0": (replicas("{url: 'http://a', weight: 0}"), "router.replicas[0].weight: 0 must be greater than 0"),
    "weight text": (replicas("{url: 'http://a', weight: x}"), "router.replicas[0].weight: 'x' must be a number"),
    "weight nan": (replicas("{url: 'http://a', weight: .nan}"), "router.replicas[0].weight: nan must be a finite"),
    "max_sessions 0": (replicas("{url: 'http://a', max_sessions: 0}"), "router.replicas[0].max_sessions: 0 must be"),
    "state": (replicas("{url: 'http://a', state: off}"), "router.replicas[0].state: False must be one of active"),
    "name": (replicas("{url: 'http://a', name: 7}"), "router.replicas[0].name: 7 must be text"),
    "interval 0": (
        replicas(A, rest="  health_check: {interval_seconds: 0}"),
        "router.health_check.interval_seconds: 0 must be greater than 0",
    ),
    "timeout below 0": (
        replicas(A, rest="  health_check: {timeout_seconds: -2}"),
        "router.health_check.timeout_seconds: -2 must be greater than 0",
    ),
    "failure threshold": (
        replicas(A, rest="  health_check: {failure_threshold: 0}"),
        "router.health_check.failure_threshold: 0 must be at least 1",
    ),
    "recovery threshold": (
        replicas(A, rest="  health_check: {recovery_threshold: 0.5}"),
        "router.health_check.recovery_threshold: 0.5 must be a whole number",
    ),
    "health path": (replicas(A, rest="  health_check: {path: health}"), "router.health_check.path: 'health' must be"),
    "health no mapping": (replicas(A, rest="  health_check: 5"), "router.health_check: 5 must be a mapping of path,"),
    "balancing no mapping": (
        replicas(A, rest="  balancing: random"),
        "router.balancing: 'random' must be a mapping of",
    ),
    "queue no mapping": (replicas(A, rest="  queue: [100]"), "router.queue: [100] must be a mapping of max_length,"),
    "policy": (
        replicas(A, rest="  balancing: {policy: fastest}"),
        "router.balancing.policy: 'fastest' must be one of least_sessions, round_robin, random",
    ),
    "policy list": (replicas(A, rest="  balancing: {policy: [random]}"), "router.balancing.policy: ['random'] must be"),
    "slow start": (
        replicas(A, rest="  balancing: {slow_start_seconds: -1}"),
        "router.balancing.slow_start_seconds: -1 must be from 0 to 3600 seconds; 0 switches it off",
    ),
    "affinity": (
        replicas(A, rest="  balancing: {affinity: 'query:'}"),
        "router.balancing.affinity: 'query:' must be none, query:NAME, header:NAME or cookie:NAME",
    ),
    "affinity off": (replicas(A, rest="  balancing: {affinity: no}"), "router.balancing.affinity: False must be none,"),
    "affinity ttl": (
        replicas(A, rest="  balancing: {affinity_ttl_seconds: 0}"),
        "router.balancing.affinity_ttl_seconds: 0 must be greater than 0 seconds",
    ),
    "queue length": (
        replicas(A, rest="  queue: {max_length: -1}"),
        "router.queue.max_length: -1 must be a whole number from 0 to 1000000; 0 lets nobody wait",
    ),
    "queue length flag": (
        replicas(A, rest="  queue: {max_length: true}"),
        "router.queue.max_length: True must be a whole",
    ),
    "queue timeout": (
        replicas(A, rest="  queue: {timeout_seconds: 0}"),
        "router.queue.timeout_seconds: 0 must be greater than 0 seconds",
    ),
    "queue when down": (replicas(A, rest="  queue: {when_down: 1}"), "router.queue.when_down: 1 must be true or false"),
    "drain deadline": (
        replicas("{url: 'http://a', drain_deadline_seconds: 90000}"),
        "router.replicas[0].drain_deadline_seconds: 90000 must be from 0 to 86400 seconds; leave it empty",
    ),
    "port text": (replicas(A, rest="  port: 'x'"), "router.port: 'x' must be a whole number from 1 to 65535"),
    "port 0": (replicas(A, rest="  port: 0"), "router.port: 0 must be"),
    "port 65536": (replicas(A, rest="  port: 65536"), "router.port: 65536 must be"),
    "port fraction": (replicas(A, rest="  port: 9000.5"), "router.port: 9000.5 must be"),
    "host unprintable": (replicas(A, rest='  host: "a\\bb"'), "router.host: 'a\\x08b' must be an address"),
    "host": (replicas(A, rest="  host: 5"), "router.host: 5 must be an address"),
    "no YAML": ("router: [", "the file is not YAML"),
    "tab": ("router:\n\treplicas: []", "line 2"),
    "two documents": ("a: 1\n---\nb: 2", "another document, line 2, column 1"),
    "a key that is a list": ("router: {[a]: 1}", "found unhashable key, line 1"),
    "a date that is none": (replicas("{url: 'http://a', name: 2024-13-45}"), "not usable YAML: month must be in 1..12"),
    "5,000 digits": (replicas("{url: 'http://a', weight: " + "9" * 5000 + "}"), "not usable YAML: Exceeds the limit"),
    "a number that is none": (
        "router: {port: !!int x}",
        "not usable YAML: invalid literal for int() with base 10: 'x', line 1",
    ),
    "a number of nothing": (
        "router: {port: !!int ''}",
        "not usable YAML: '' is no int, line 1, column 16; put text in quo",
    ),
    "a flag that is none": (replicas("{primary: !!bool x}"), "not usable YAML: 'x' is no bool, line 3, column 17"),
    "a set that is none": (
        "router: !!set 0",
        "the file is not YAML: expected a mapping node, but found scalar, line 1",
    ),
    "too deep": (replicas("{url: 'http://a', name: " + "[" * 5000), "nested too deeply"),
    "key twice": ("router: {port: 1, port: 2}", "the key 'port' stands there twice"),
    "code": ("router: !!python/object/apply:os.system ['true']", "the file is not YAML"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_with_a_mistake_is_refused_by_key_and_value(case: str) -> None:
    """Each refusal of contract A6, with what to write instead."""
    text, expected = REFUSED[case]
    with pytest.raises(ConfigRefused) as refused:
        parse(text)
    assert expected in str(refused.value)


def test_all_mistakes_are_named_at_once() -> None:
    """Nobody should have to load a file five times to find five mistakes."""
    text = replicas("{url: 'ftp://a', weight: 0}", "5", rest="  port: 0\n  health_check: {timeout_seconds: 0}")
    with pytest.raises(ConfigRefused) as refused:
        parse(text)
    assert len(refused.value.problems) == 5


def test_the_contracts_own_example_is_read() -> None:
    """Contract A6, to the letter; what it leaves out is not made up."""
    config = parse(GOOD)
    assert config.replicas == [
        {"url": "http://streamer-a:8000", "name": "a", "primary": True, "weight": 1.0},
        {"url": "http://streamer-b:8000"},
    ]
    assert config.blocks == {
        "health_check": {
            "health_path": "/health",
            "interval_seconds": 5.0,
            "timeout_seconds": 2.0,
            "failure_threshold": 3,
            "recovery_threshold": 2,
        }
    }
    assert (config.host, config.port, config.warnings) == ("0.0.0.0", 9000, [])


def test_fractions_of_seconds_and_a_trailing_slash_are_fine() -> None:
    """A trailing / means the same replica as without it."""
    config = parse(replicas("{url: 'http://a:1/'}", rest="  health_check: {interval_seconds: 0.5}"))
    assert config.replicas == [{"url": "http://a:1"}]
    assert config.blocks == {"health_check": {"interval_seconds": 0.5}}


def test_the_blocks_of_placement_are_read() -> None:
    """All their keys, and edges of their values; what a block leaves out is not made up, nor is an empty block."""
    rest = (
        "  balancing: {policy: round_robin, slow_start_seconds: 0, affinity: 'cookie:sid', affinity_ttl_seconds: 60}\n"
        "  queue: {max_length: 0, timeout_seconds: 0.5, when_down: true}\n"
    )
    config = parse(replicas("{url: 'http://a', drain_deadline_seconds: 0}", rest=rest))
    assert config.replicas == [{"url": "http://a", "drain_deadline_seconds": 0}]
    assert config.blocks == {
        "balancing": {
            "policy": "round_robin",
            "slow_start_seconds": 0,
            "affinity": "cookie:sid",
            "affinity_ttl_seconds": 60,
        },
        "queue": {"queue_max_length": 0, "queue_timeout_seconds": 0.5, "queue_when_down": True},
    }
    config = parse(replicas(A, rest="  balancing: {affinity: none, policy: null}\n  queue:\n"))
    assert (config.blocks, config.warnings) == ({"balancing": {"affinity": "none"}}, [])


def test_null_takes_away_what_a_replica_may_be_without() -> None:
    """Its own number of slots and its deadline; elsewhere it says nothing."""
    config = parse(replicas("{url: 'http://a', max_sessions: null, drain_deadline_seconds: null, weight: null}"))
    assert config.replicas == [{"url": "http://a", "max_sessions": None, "drain_deadline_seconds": None}]


def test_unknown_keys_and_names_used_twice_get_a_warning() -> None:
    """By name; the file is loaded all the same."""
    text = replicas("{url: 'http://a', name: x, wieght: 2}", "{url: 'http://b', name: x}", rest=UNKNOWN)
    warnings = "\n".join(parse(text).warnings)
    for key in (
        "extra: unknown",
        "router.prot: unknown key, ignored; known are host, port, replicas, health_check, balancing, queue",
        "router.balancing.polcy: unknown key, ignored; known are policy, slow_start_seconds, affinity, affinity_ttl",
        "router.queue.length: unknown key, ignored; known are max_length, timeout_seconds, when_down",
        "router.replicas[0].wieght: unknown",
        "replicas[1].name: 'x'",
    ):
        assert key in warnings


def test_a_value_blown_up_by_aliases_is_shown_short() -> None:
    """A small file whose value would fill the memory if it were printed whole."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(ConfigRefused) as refused:
        parse("\n".join([*lines, "router: {replicas: [*a11]}"]))
    assert len(str(refused.value)) < 500
