"""docs/metrics.md, the alerts and the dashboard name the metrics that exist, and docs/metrics.md all of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.utils import timezone
from prometheus_client.metrics_core import Metric

from dashboard import metrics
from proxy import instruments
from replicas import prober_instruments
from replicas.models import ProberLease, ReplicaHealth
from tests.integration.placing import add_replica

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "metrics.md").read_text()
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
NAME = re.compile(r"stream_router_[a-z_]+")


@pytest.fixture
def families(database: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Every exposed family: its type and labels."""
    replica = add_replica("a", max_sessions=2)
    ReplicaHealth.objects.filter(replica=replica).update(last_latency_ms=1)
    ProberLease.objects.create(pk=1, epoch=1, beat=1, beaten_at=timezone.now())
    instruments._ended.labels("client_closed", "1000").inc(0)
    found: list[Metric] = [
        *instruments.EXPOSED.collect(),
        *prober_instruments.EXPOSED.collect(),
        *metrics.read_fleet(),
        metrics._one("database_up", "", 1),
    ]
    return {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            frozenset(label for sample in family.samples for label in sample.labels) - {"le"},
        )
        for family in found
    }


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    rows = re.findall(r"^\| `(stream_router_\w+)` \| (\w+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", DOCS, re.MULTILINE)
    assert all(unit.strip() and meaning.strip() for *_, unit, meaning in rows)
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _, _ in rows}


def exposed_names(families: dict[str, tuple[str, frozenset[str]]]) -> set[str]:
    """As they stand in a query: of a histogram its parts."""
    names = set(families)
    for name, (kind, _) in families.items():
        if kind == "histogram":
            names |= {f"{name}_{part}" for part in ("bucket", "count", "sum")}
    return names


def test_every_metric_is_documented_and_no_other(families: dict[str, tuple[str, frozenset[str]]]) -> None:
    """With its type and its labels."""
    assert documented() == families


def test_outcomes_and_codes_are_documented() -> None:
    """All values that these labels can have."""
    for value in (*instruments.OUTCOMES, "none", "other"):
        assert f"`{value}`" in DOCS
    assert ", ".join(map(str, instruments.CODES)) in DOCS


def rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    ]
    return found


def test_alerts_use_metrics_that_exist(families: dict[str, tuple[str, frozenset[str]]]) -> None:
    """And values of labels that exist."""
    for rule in rules():
        used = set(NAME.findall(rule["expr"]))
        assert used, rule["alert"]
        assert used <= exposed_names(families), rule["alert"]
        for outcomes in re.findall(r'outcome=~"([^"]+)"', rule["expr"]):
            assert set(outcomes.split("|")) <= set(instruments.OUTCOMES)


def test_each_alert_has_its_page_in_the_runbook() -> None:
    """The annotation names a heading of docs/operations.md."""
    headings = re.findall(r"^### (.+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    anchors = {f"docs/operations.md#{heading.lower().replace(' ', '-')}" for heading in headings}
    runbooks = [rule["annotations"]["runbook"] for rule in rules()]
    assert set(runbooks) <= anchors
    assert len(set(runbooks)) == len(runbooks)
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in rules())


def test_prometheus_itself_takes_the_alerts(tmp_path: Path) -> None:
    """The rules, and what they say of series that make each of them fire, by promtool."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool: apt-get install prometheus")
    shutil.copy(ALERTS, tmp_path)
    shutil.copy(Path(__file__).with_name("alerts_test.yml"), tmp_path)
    for arguments in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([promtool, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tried() -> None:
    """alerts_test.yml has a case in which it fires."""
    cases = yaml.safe_load(Path(__file__).with_name("alerts_test.yml").read_text())["tests"]
    tried = {each["alertname"] for case in cases for each in case["alert_rule_test"] if each["exp_alerts"]}
    assert tried == {rule["alert"] for rule in rules()}


def test_the_dashboard_uses_metrics_that_exist(families: dict[str, tuple[str, frozenset[str]]]) -> None:
    """It is what Grafana imports: panels with places of their own, queries with a data source to be chosen."""
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [
        (x, y)
        for g in (panel["gridPos"] for panel in panels)
        for x in range(g["x"], g["x"] + g["w"])
        for y in range(g["y"], g["y"] + g["h"])
    ]
    assert len(set(places)) == len(places)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
    used: set[str] = set()
    for panel in panels:
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
            names = set(NAME.findall(target["expr"]))
            assert names, target["expr"]
            used |= names
    assert used <= exposed_names(families)


def test_prometheus_itself_reads_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    """Each as Grafana sends it: as the expression of a rule, by promtool."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool: apt-get install prometheus")
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    rules = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate(queries)
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(queries)} rules found" in done.stdout
