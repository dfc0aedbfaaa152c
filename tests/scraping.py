"""Scrapes of /metrics and of ROUTER_METRICS_LISTEN, read by prometheus_client's own parser."""

from __future__ import annotations

import asyncio
import urllib.request
from collections import Counter
from collections.abc import Iterable

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.canaries import MACHINE_TOKEN

# Each sample by its name, without the prefix, and the values of its labels, in the order of the labels' names.
Samples = dict[tuple[str, ...], float]


def samples(families: Iterable[Metric]) -> Samples:
    found: Samples = {}
    for family in families:
        for sample in family.samples:
            labels = [value for _, value in sorted(sample.labels.items())]
            found[sample.name.removeprefix("stream_router_"), *labels] = sample.value
    return found


def parse(text: str) -> Samples:
    return samples(text_string_to_metric_families(text))


async def scrape(port: int, path: str = "/metrics") -> Samples:
    """As a Prometheus that has the token of processes.py."""
    return parse(await asyncio.to_thread(_get, f"http://127.0.0.1:{port}{path}"))


async def scrape_all(ports: Iterable[int]) -> Counter[tuple[str, ...]]:
    """The sum over several processes; what none has is 0."""
    total: Counter[tuple[str, ...]] = Counter()
    for found in await asyncio.gather(*map(scrape, ports)):
        for name, value in found.items():
            total[name] += value  # type: ignore[assignment]
    return total


def _get(url: str) -> str:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {MACHINE_TOKEN}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
        text: str = answer.read().decode()
        return text
