"""How the router's processes write their logs: to standard error, as text or as JSON lines.

Named in settings.py. A line never holds a prompt, a token or a query value; libraries that would print headers
or URLs are kept quiet here, whatever LOG_LEVEL says, and so is uvicorn, which has a level of its own.
"""

from __future__ import annotations

import logging
import logging.config
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS

# At DEBUG or INFO these print request headers (ROUTER_UPSTREAM_AUTHORIZATION is one) and internal URLs.
QUIET_LOGGERS = ("websockets", "httpx", "httpcore", "hpack", "asyncio", "twisted", "autobahn")


# uvicorn's own, at the level that its command line names.
SERVER_LOGGERS = ("uvicorn.error", "uvicorn.access", "uvicorn.asgi")


def configure(config: dict[str, Any]) -> None:
    """Django's LOGGING_CONFIG. uvicorn has configured its loggers by then: they keep handlers and level."""
    logging.config.dictConfig(config)
    for name in SERVER_LOGGERS:
        logging.getLogger(name).addFilter(cut_queries)


def logging_config(level: str, style: str) -> dict[str, Any]:
    """Django's LOGGING for `level` (a name of the logging module) and `style` (`text` or `json`)."""
    formatters = {
        "text": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"},
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s %(message)s",
            # Django's records carry the request, whose text holds its query.
            "reserved_attrs": [*RESERVED_ATTRS, "request"],
            "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
        },
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {style: formatters[style]},
        "filters": {
            "answers": {"()": "django.utils.log.CallbackFilter", "callback": is_fault},
            "reasons": {"()": "django.utils.log.CallbackFilter", "callback": cut_what_was_sent},
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": style}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Django's default handlers would print each of its lines a second time.
            "django": {"handlers": [], "level": level, "propagate": True},
            "django.request": {"filters": ["answers"]},
            "django.security.csrf": {"filters": ["reasons"]},
            # A scanner that names a wrong Host gets its 400; a traceback for each would hide what matters.
            "django.security.DisallowedHost": {"level": "CRITICAL"},
            **{name: {"level": "WARNING"} for name in QUIET_LOGGERS},
            # At each fault of a database it warns that that turn's pipeline ends with it; the fault itself is logged.
            "psycopg": {"level": "ERROR"},
        },
    }


def is_fault(record: logging.LogRecord) -> bool:
    """Not so a 503 of /readyz: it answers the question. As an error it would fill the log at each start and outage."""
    request = getattr(record, "request", None)
    return not (getattr(record, "status_code", None) == 503 and request is not None and request.path == "/readyz")


def cut_what_was_sent(record: logging.LogRecord) -> bool:
    """Why a form was not accepted, without the Origin or Referer that Django names behind a dash."""
    if isinstance(record.args, tuple) and record.args:
        record.args = (str(record.args[0]).partition(" - ")[0], *record.args[1:])
    return True


def cut_queries(record: logging.LogRecord) -> bool:
    """Of uvicorn: paths without their query, and nothing below INFO, where it prints headers and messages."""
    if isinstance(record.args, tuple):
        record.args = tuple(arg.partition("?")[0] if isinstance(arg, str) else arg for arg in record.args)
    return record.levelno >= logging.INFO
