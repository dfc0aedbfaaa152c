"""A router's database with something of everything that has a page in the admin, and the addresses of those pages."""

from __future__ import annotations

import time
from datetime import timedelta

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.utils import timezone

from proxy.models import RouterProcess, Session
from replicas.models import HealthTransition, PlacementRecord, Replica, ReplicaHealth, RouterSettings

NAME, PASSWORD = "ops", "operator-1"
HOUR = timedelta(hours=1)

# How sessions end; the words are those of proxy/errors.py and of the links.
ENDINGS = (
    {"ended_by": "client", "why": "closed", "close_code": 1000},
    {"ended_by": "client", "why": "vanished"},
    {"ended_by": "replica", "why": "vanished", "close_code": 1011},
    {"ended_by": "replica", "why": "no answer to a ping", "close_code": 1011},
    {"ended_by": "router", "why": "replica_drained", "close_code": 1012},
    {"ended_by": "router", "why": "takes too little of what it is sent", "close_code": 1008},
)


def fill(db: str) -> dict[str, int]:
    """Rows of every kind; gives the ids of those with a page of their own. Nothing here waits or beats."""
    now = timezone.now()
    user = User.objects.db_manager(db).create_superuser(NAME, "", PASSWORD)
    RouterSettings.objects.using(db).create(pk=1)
    replicas = [_replica(db, index) for index in range(5)]
    PlacementRecord(replica=replicas[3], failures=2, ejections=2, ejected_until=time.time() + 55).save(using=db)
    for hours in range(3):
        change = {"old_status": "healthy", "new_status": "unhealthy", "reason": "HTTP 503"}
        moved = HealthTransition(replica=replicas[3], at=now - hours * HOUR, **change)
        moved.save(using=db)
    gone = RouterProcess(name="router-0:4410", version="0.1.0", ended_at=now - HOUR, why="router process vanished")
    gone.save(using=db)
    sessions = [_session(db, number, replicas[number % 5]) for number in range(24)]
    Replica.everything.using(db).filter(pk=replicas[4].pk).update(deleted_at=now)  # sessions are on it still
    kind = ContentType.objects.db_manager(db).get_for_model(Replica)
    for replica in replicas[1:4]:
        LogEntry(
            user=user, content_type=kind, object_id=str(replica.pk), object_repr=str(replica), action_flag=CHANGE,
            change_message="State: active → draining; Drain deadline (s): none → 600.",
        ).save(using=db)  # fmt: skip
    return {
        "user": user.pk,
        "group": Group.objects.using(db).get(name="Operators").pk,
        "replica": replicas[2].pk,
        "ill": replicas[3].pk,
        "deleted": replicas[4].pk,
        "live": sessions[0].pk,
        "ended": sessions[20].pk,
        "transition": moved.pk,
        "process": gone.pk,
        "act": LogEntry.objects.using(db).latest("id").pk,
    }


def _replica(db: str, index: int) -> Replica:
    now, name = timezone.now(), f"streamer-{'abcde'[index]}"
    replica = Replica(
        name=name, url=f"http://{name}.gpu.example.com:8000", primary=index == 0,
        max_sessions=(8, 4, None, 4, 2)[index],
        state="draining" if index == 2 else "active", drain_deadline_seconds=600 if index == 2 else None,
    )  # fmt: skip
    replica.save(using=db)
    ill = index == 3
    ReplicaHealth(
        replica=replica, url=replica.url, status="unhealthy" if ill else "healthy", checked_at=now,
        status_since=now - 2 * HOUR, last_ok_at=now - HOUR, last_latency_ms=3.2 + index,
        last_error="connection refused: nothing listens at that port" if ill else "", reported_readiness="ready",
        consecutive_failures=7 if ill else 0, consecutive_successes=0 if ill else 512,
    ).save(using=db)  # fmt: skip
    return replica


def _session(db: str, number: int, replica: Replica) -> Session:
    """Of the first twelve each is live."""
    opened = timezone.now() - timedelta(minutes=90 - number)
    live = number < 12
    session = Session(
        uid=f"{number + 1:08x}{'c0ffee' * 4}", replica=replica, replica_name=replica.name, url=replica.url, attempts=1,
        client=f"203.0.113.{number + 7}", opened_at=opened, placed_at=opened + timedelta(seconds=number / 4),
        ended_at=None if live else opened + timedelta(minutes=7, seconds=number),
        bytes_up=0 if live else 1200 * number, bytes_down=0 if live else 65_536_000 * number,
    )  # fmt: skip
    for name, value in ({} if live else ENDINGS[number % len(ENDINGS)]).items():
        setattr(session, name, value)
    session.save(using=db)
    return session


def pages(ids: dict[str, int]) -> dict[str, str]:
    """Name → address below /admin/, of every page that a GET shows to who may do all."""
    replica, session, process = "replicas/replica", "proxy/session", "proxy/routerprocess"
    return {
        "index": "",
        "app": "replicas/",
        "replicas": f"{replica}/",
        "replicas-none": f"{replica}/?q=nothing-like-it",
        "replica-add": f"{replica}/add/",
        "replica": f"{replica}/{ids['replica']}/change/",
        "replica-ill": f"{replica}/{ids['ill']}/change/",
        "replica-deleted": f"{replica}/{ids['deleted']}/change/",
        "replica-delete": f"{replica}/{ids['replica']}/delete/",
        "replica-history": f"{replica}/{ids['ill']}/history/",
        "transitions": "replicas/healthtransition/",
        "transition": f"replicas/healthtransition/{ids['transition']}/change/",
        "settings": "replicas/routersettings/1/change/",
        "settings-history": "replicas/routersettings/1/history/",
        "sessions": f"{session}/",
        "sessions-filtered": f"{session}/?state=ended&replica={ids['replica']}&close_code=1011&q=203",
        "session-live": f"{session}/{ids['live']}/change/",
        "session-ended": f"{session}/{ids['ended']}/change/",
        "session-history": f"{session}/{ids['ended']}/history/",
        "processes": f"{process}/",
        "process": f"{process}/{ids['process']}/change/",
        "acts": "admin/logentry/",
        "act": f"admin/logentry/{ids['act']}/change/",
        "users": "auth/user/",
        "user-add": "auth/user/add/",
        "user": f"auth/user/{ids['user']}/change/",
        "user-password": f"auth/user/{ids['user']}/password/",
        "user-delete": f"auth/user/{ids['user']}/delete/",
        "groups": "auth/group/",
        "group": f"auth/group/{ids['group']}/change/",
        "password": "password_change/",
        "no-such-page": "no/such/page/",
    }
