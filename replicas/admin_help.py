"""What the admin's pages say of each field: its unit, an example, and what a value of it leads to.

Used by admin_forms.py. The tables' own help texts (models/) are shorter; what may stand in a field says rules.py.
"""

from __future__ import annotations

REPLICA_LABELS = {"max_sessions": "Slots"}
SETTINGS_LABELS = {"interval_seconds": "Interval (s)", "timeout_seconds": "Timeout (s)"}

REPLICA = {
    "name": "A label for people, like streamer-a: it stands in lists, logs and metrics. At most 63 characters. Left "
    "empty: the URL’s host and port.",
    "url": "Where the streaming server listens: http://host:port or https://host:port, without a path, like "
    "http://streamer-a:8000. Changed: the prober looks there at once and new sessions go there; live ones stay where "
    "they are.",
    "primary": "Filled first, up to its slots; the others share what is left. At most one replica is the primary. With "
    "none all share: that is active-active. “Make primary” in the list moves the mark in one step.",
    "state": "Active: gets sessions while it is healthy. Draining: keeps its sessions, takes no new ones. Disabled: "
    "the same, and it is not probed, so it has to pass a probe first when it is activated again.",
    "drain_deadline_seconds": "Seconds, 0 to 86400, like 600. While it drains: sessions left after so long are closed "
    "(1012 replica_drained), spread over 10 s. Counts from the drain’s beginning, or from a change of this. Left "
    "empty: they go on to their end.",
    "weight": "Its share of the sessions beside others of its rank; above 0. Of weights 2 and 1 the first gets two "
    "sessions of three. To send it none, drain it.",
    "max_sessions": "How many sessions it holds at once (max_sessions in files); 1 or more, like 8. With "
    "all of them taken it is passed over, and where nothing is free clients wait in the line. Left empty: what it "
    "reports as total_gpus at its health path, or else no limit. Lowered: no live session is cut.",
    # What is only shown.
    "sessions": "Live now, of its slots, over all router processes.",
    "found": "What sessions found when they connected. After 3 failures in a row it gets none for 5 s, then 10 s, up "
    "to 60 s; after a rejection it counts as full for 1 s, then 2 s, up to 10 s.",
    "status_badge": "By its last probes: Router settings say how many make it unhealthy and healthy again. Unhealthy "
    "ones get no session.",
    "last_probe": "Stale: the prober is silent. Its last word stands, and fresh replicas come first.",
    "in_a_row": "Since the last change between success and failure.",
    "latency": "Of the last probe, in milliseconds.",
    "last_error": "Of the last probe; empty after a good one.",
    "origin": "People: added here. A file: brought in by loadreplicas; only such replicas are removed by its --prune. "
    "Itself: by the API; when it no longer renews that it is drained, and then removed. What it says of its URL, "
    "weight and slots overwrites what is edited here.",
    "reports": "What it says of itself at its health path. Slots count where the field above is left empty.",
}

SETTINGS = {
    "health_path": "Probes are a GET of this path of each replica; an answer below 400 is good. /health of most "
    "servers says yes while they still warm up; /readyz tells warming from ready, so that a warming one gets no "
    "sessions.",
    "interval_seconds": "Seconds between two probes of a replica; above 0, at most 3600. Shorter: failures are found "
    "sooner, with more requests. With 5 s and 3 failures a dead replica is out after some 15 s; connects that fail put "
    "it out earlier.",
    "timeout_seconds": "Seconds; a probe that takes longer has failed. Too short, and a busy replica is taken for a "
    "dead one.",
    "failure_threshold": "So many failed probes in a row make a replica unhealthy, like 3. At 1 a single lost packet "
    "takes it out.",
    "recovery_threshold": "So many good probes in a row make it healthy again, like 2. Higher, and a replica that "
    "flaps stays out longer.",
    "policy": "How sessions are shared within a rank. Least sessions suits sessions of any length; round robin those "
    "of one length; random many router processes. The primary is filled first in any case.",
    "slow_start_seconds": "Seconds, 0 to 3600, like 30. A replica that has become healthy gets a growing share for so "
    "long, so that a cold one is not run over; 0: its full share at once. A slot that someone waits for is never "
    "withheld.",
    "affinity": "What brings a client back to the replica of its last session, if that is available: none, query:NAME, "
    "header:NAME or cookie:NAME. With query:user, /v1/stream?user=7 leads back to where 7 was. Of the key only a "
    "digest is stored.",
    "affinity_ttl_seconds": "Seconds, like 600: for so long after a session’s end its key leads back.",
    "queue_max_length": "Clients, like 100, over all router processes. Who comes when so many wait is refused "
    "(gpu_unavailable, 1013 queue_full). 0: nobody waits.",
    "queue_timeout_seconds": "Seconds, like 120. Who has waited so long is refused (gpu_unavailable, 1013 "
    "queue_timeout).",
    "queue_when_down": "Off: with no healthy replica at all clients are refused at once (1013 no_healthy_replica). On: "
    "they wait, and are placed when one is back.",
    "client_auth": "Open: whoever reaches the router. Token: who shows a stream token as “Authorization: Bearer …”, "
    "or a ticket for browsers (?ticket=…), which your backend gets from POST /api/v1/tickets with its stream token. "
    "Make tokens under Stream tokens.",
    "max_sessions_per_address": "Sessions at once of one client address, like 4, those in the line among them; 0: no "
    "limit. Of IPv6 a /64 counts as one. Behind proxies of yours set ROUTER_TRUSTED_PROXIES, or all clients are one. "
    "Sessions that were there before a limit was set do not count.",
    "new_sessions_per_minute": "New sessions of one client address within 60 s, like 20; 0: no limit. Those that were "
    "refused do not count.",
}
