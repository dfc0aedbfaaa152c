"""What `manage.py check` says about this installation, and what keeps a server from starting with half of it.

Registered by apps.py, run by Django's commands and by asgi.py. Each message says what is wrong and what is allowed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

# Tags of the checks that something's start depends on: any command's of ours, and a server's.
COMMAND, START = "settings", "router"


@checks.register(COMMAND, START)
def settings_are_usable(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    return [checks.Error(str(problem), id="router.E001") for problem in settings.ENVIRONMENT.problems]


@checks.register(START)
def daphne_can_be_taken_over(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    from proxy import daphne, rehearsal

    return [
        checks.Error(f"Daphne cannot carry sessions here: {fault}.", hint=daphne.HINT, id="router.E002")
        for fault in rehearsal.seam_faults()
    ]


@checks.register(START)
def psycopg_sends_in_sets(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    if connection.vendor != "postgresql":
        return []
    from proxy import pipeline

    hint = "Install a version of psycopg that the router was tested with: constraints/ names one."
    return [
        checks.Error(f"Placement cannot rely on PostgreSQL here: {fault}.", hint=hint, id="router.E004")
        for fault in pipeline.seam_faults()
    ]


@checks.register(checks.Tags.security, deploy=True)
def https_in_production(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    if settings.HTTPS_ONLY:
        return []
    return [
        checks.Error(
            "HTTPS_ONLY is false: passwords and session cookies of operators travel in the clear.",
            hint="Set HTTPS_ONLY=true, and BEHIND_PROXY=true where a proxy of yours ends TLS.",
            id="router.E003",
        )
    ]


@checks.register(checks.Tags.security, deploy=True)
def defaults_that_are_for_one_desk(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """What is handy where a router is tried out, and not where strangers reach it."""
    found: list[checks.CheckMessage] = []
    if settings.DEBUG:
        found.append(
            checks.Error(
                "DEBUG is true: whoever brings about a fault reads settings and code.",
                hint="Set DEBUG=false, or leave it out.",
                id="router.E008",
            )
        )
    if set(settings.ALLOWED_HOSTS) <= set(settings.LOCAL_HOSTS) or "*" in settings.ALLOWED_HOSTS:
        found.append(
            checks.Error(
                f"ALLOWED_HOSTS is {','.join(settings.ALLOWED_HOSTS)}: pages answer on this machine alone, or whatever "
                "host they are asked for.",
                hint="Set ALLOWED_HOSTS to the names under which people reach it, like router.example.com.",
                id="router.E005",
            )
        )
    for id, name, tells in (
        ("router.E006", "ROUTER_STATUS_ACCESS", "addresses and load of all replicas"),
        ("router.E007", "ROUTER_METRICS_ACCESS", "names, load and failures of all replicas"),
    ):
        if getattr(settings, name) == "public":
            found.append(
                checks.Error(
                    f"{name} is public: anyone reads {tells}.",
                    hint=f"Set {name}=staff, or {name}=token and ROUTER_MACHINE_TOKEN.",
                    id=id,
                )
            )
    if settings.BEHIND_PROXY and not settings.ROUTER_TRUSTED_PROXIES:
        found.append(
            checks.Error(
                "BEHIND_PROXY is true and ROUTER_TRUSTED_PROXIES 0: to limits, sign-ins and the log all clients have "
                "the proxy's address, and anyone who types wrong passwords locks all operators out.",
                hint="Set ROUTER_TRUSTED_PROXIES to how many proxies of yours stand before the router, mostly 1.",
                id="router.E009",
            )
        )
    listen = settings.ROUTER_METRICS_LISTEN
    if listen and settings.ROUTER_METRICS_ACCESS != "token" and not _is_this_machine(listen[0]):
        found.append(
            checks.Error(
                f"ROUTER_METRICS_LISTEN is {listen[0]}:{listen[1]}: anyone who reaches that address reads names, load "
                "and failures of all replicas; staff cannot sign in there.",
                hint="Set ROUTER_METRICS_ACCESS=token and ROUTER_MACHINE_TOKEN, or let it listen at 127.0.0.1.",
                id="router.E010",
            )
        )
    return found


@checks.register(checks.Tags.security, deploy=True)
def our_secret_goes_where_it_should(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    if not settings.ROUTER_UPSTREAM_AUTHORIZATION or settings.ROUTER_REPLICA_NETWORKS:
        return []
    return [
        checks.Warning(
            "ROUTER_UPSTREAM_AUTHORIZATION is set and ROUTER_REPLICA_NETWORKS is not: whoever may add a replica, with "
            "a token of the scope register too, has that secret sent to a server of theirs by the next probe.",
            hint="Set ROUTER_REPLICA_NETWORKS to the networks that your replicas are in, like 10.0.0.0/8.",
            id="router.W002",
        )
    ]


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def refuse_to_start() -> None:
    """Raise ImproperlyConfigured with every error among the start checks; return None when there is none."""
    faults = [message for message in checks.run_checks(tags=[START]) if message.level >= checks.ERROR]
    if faults:
        raise ImproperlyConfigured("the router does not start:\n" + "\n".join(f"- {f.msg}" for f in faults))
