"""What the admin's pages of sessions and router processes say of each field. Used by admin.py."""

from __future__ import annotations

SESSION = {
    "uid": "As in the logs, in the message of a worker_failed, and in the X-Request-ID that its replica saw.",
    "state": "Waiting: in the line, without a slot. Live: it has one. Ended: only its history is left, for "
    "ROUTER_HISTORY_DAYS.",
    "from_client": "The address it came from; behind proxies of yours (ROUTER_TRUSTED_PROXIES) the one that they name.",
    "token_name": "The name of the stream token that let it in, or that its ticket was made with; none where who may "
    "stream is open.",
    "in_process": "Holds its connection. If that process dies, so does the session.",
    "affinity_key": "A digest of what the client brought as its key (Router settings, affinity); the key is not kept.",
    "on_replica": "As the replica was called when the session came there.",
    "url": "Where its slot is: the replica’s address at that time.",
    "attempts": "Replicas tried; above 1 one of them failed it before it had begun.",
    "avoid": "Replicas that have failed it: id → when, in Unix seconds. It does not go there again for 30 s.",
    "placed": "When it got its slot.",
    "first_media": "When its replica first sent it something.",
    "waited": "For its first slot; until its end where it got none.",
    "lasted": "From its opening to its end, or to now.",
    "up": "Payloads; while it lives as its process last said, and how fast.",
    "down": "Payloads; while it lives as its process last said, and how fast.",
    "close_code": "The code that the client sent or was sent; none where it vanished. README.md has the table.",
    "ended_by": "Who ended it: client, replica or router.",
    "why": "In the words of the log.",
    "disconnect_reason": "What an operator said who disconnected it; the client hears it with 1012.",
}

PROCESS = {
    "name": "Host and process id.",
    "state": "Live: takes sessions. Draining: keeps those it has and takes none, then ends. Silent: no beat for 7.5 s; "
    "the other processes end it, and its slots are free again.",
    "live_sessions": "Placed or waiting, on this process’s connections.",
    "last_beat": "Each process counts up a row every second.",
    "why": "Stopped: in order. Vanished: it was found without a beat.",
}
