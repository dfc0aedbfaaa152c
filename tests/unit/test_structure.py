"""What holds the house together: which room imports which, what PURE means, and that the docs name every setting."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("routerproject", "api", "dashboard", "proxy", "replicas", "demo", "bench")
# Which rooms a room may import from (design: imports run one way).
ALLOWED = {
    "routerproject": {"routerproject", "api", "dashboard", "proxy", "replicas", "demo"},
    "api": {"api", "dashboard", "proxy", "replicas"},
    "dashboard": {"dashboard", "proxy", "replicas"},
    "proxy": {"proxy", "replicas"},
    "replicas": {"replicas"},
    "demo": {"demo"},
    "bench": {"bench"},
}
# What drives a part of the router without a server around it.
DRIVERS = {"bench/placements_worker.py": {"proxy", "replicas"}}
MAX_LINES = 350


def sources() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py") if "migrations" not in path.parts)


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def is_pure(path: Path) -> bool:
    return (ast.get_docstring(ast.parse(path.read_text())) or "").startswith("PURE.")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    """routerproject → api → dashboard → proxy → replicas; the demo and the bench stand by themselves."""
    room = path.relative_to(ROOT).parts[0]
    rooms = {module.split(".")[0] for module in imported(path)} & set(ROOMS)
    assert rooms <= ALLOWED[room] | DRIVERS.get(name_of(path), set())


@pytest.mark.parametrize("path", [path for path in sources() if is_pure(path)], ids=name_of)
def test_pure_modules_import_the_standard_library_and_each_other(path: Path) -> None:
    """No Django, no Channels, no HTTP client, no asyncio: they can be tested and reasoned about alone."""
    for module in imported(path):
        top = module.split(".")[0]
        if top in ROOMS:
            target = ROOT / Path(*module.split("."))
            assert is_pure(target.with_suffix(".py")), f"{module} is not PURE"
        else:
            assert top in sys.stdlib_module_names, module
            assert top not in ("asyncio", "socket", "selectors"), module


def test_the_modules_that_must_be_pure_are() -> None:
    """Those of the design, and those that joined them."""
    pure = {name_of(path) for path in sources() if is_pure(path)}
    assert pure >= {
        "replicas/addresses.py",
        "replicas/health.py",
        "replicas/latencies.py",
        "replicas/passive.py",
        "replicas/rules.py",
        "replicas/wording.py",
        "proxy/selection.py",
        "proxy/errors.py",
        "proxy/explain.py",
        "proxy/frames.py",
        "proxy/scanner.py",
        "proxy/forwarding.py",
        "dashboard/changes.py",
        "demo/messages.py",
        "bench/frames.py",
        "bench/reach.py",
        "bench/report.py",
        "bench/chart.py",
    }


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_every_file_says_what_it_is_for(path: Path) -> None:
    """A docstring first; and no file past comfort."""
    text = path.read_text()
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "no docstring"
    assert len(text.splitlines()) <= MAX_LINES


def test_the_readme_names_every_setting() -> None:
    """And no setting that does not exist."""
    table = set(re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert table == set(settings.ENVIRONMENT.names)


def test_daphne_is_known_to_nobody_else() -> None:
    """proxy/daphne.py and its rehearsal are the modules that know Daphne's internals."""
    users = {name_of(path) for path in sources() for module in imported(path) if module.split(".")[0] == "daphne"}
    assert users == {"proxy/daphne.py", "proxy/rehearsal.py"}


def test_every_threat_names_tests_that_exist() -> None:
    """docs/security.md: threat, answer, test."""
    table = (ROOT / "docs" / "security.md").read_text().partition("## Threats")[2]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for threat, answer, tests in rows:
        assert threat
        assert answer
        named = re.findall(r"`([^`]+)`", tests)
        assert named, threat
        for name in named:
            path = name.partition("::")[0]
            assert (ROOT / "tests" / path).exists() or (ROOT / path).exists(), name
