"""All settings of the router, read from the environment once, at start.

README.md lists every variable with its unit and default; a test holds the two together. What an operator changes
while the router runs (replicas, thresholds) is in the database, not here. A value that cannot be used is collected in
`ENVIRONMENT.problems`: `manage.py check` prints them and the server refuses to start (checks.py, asgi.py).
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from replicas import addresses
from routerproject import databases, values
from routerproject.environment import SECRET_CHARACTERS, Environment, Problem, Unusable, kept_secret
from routerproject.logs import logging_config

BASE_DIR = Path(__file__).resolve().parent.parent
ENVIRONMENT = Environment()
_env = ENVIRONMENT

MIB = 1024 * 1024

# --- the process ---------------------------------------------------------------------------------------------------

VAR_DIR = Path(
    _env.text(
        "ROUTER_VAR_DIR",
        str(BASE_DIR / "var"),
        allowed="an absolute path of a folder the router may write",
        valid=lambda value: Path(value).is_absolute(),
    )
)
DEBUG = _env.flag("DEBUG", False)
LOG_LEVEL = _env.text(
    "LOG_LEVEL",
    "INFO",
    allowed="DEBUG, INFO, WARNING, ERROR or CRITICAL",
    valid=lambda value: value.upper() in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
).upper()
LOG_FORMAT = _env.text("LOG_FORMAT", "text", allowed="text or json", valid=lambda value: value in ("text", "json"))
LOGGING = logging_config(LOG_LEVEL, LOG_FORMAT)
LOGGING_CONFIG = "routerproject.logs.configure"

SECRET_KEY = _env.text(
    "SECRET_KEY",
    "",
    allowed="50 or more random characters; unset: made once and kept in ROUTER_VAR_DIR/secret_key",
    valid=lambda value: len(value) >= SECRET_CHARACTERS,
    secret=True,
)
if not SECRET_KEY:
    try:
        SECRET_KEY = kept_secret(VAR_DIR / "secret_key")
    except (OSError, Unusable) as error:
        SECRET_KEY = "unusable: " + "-" * SECRET_CHARACTERS  # Django needs one to get as far as reporting the problem
        wrong = getattr(error, "strerror", None) or str(error)
        _env.problems.append(Problem("ROUTER_VAR_DIR", str(VAR_DIR), "a folder the router may write", wrong))

# --- HTTP ----------------------------------------------------------------------------------------------------------

LOCAL_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
ALLOWED_HOSTS = _env.words(
    "ALLOWED_HOSTS",
    LOCAL_HOSTS,
    allowed="host names without scheme or port, IPv6 in []; .example.com means it and its subdomains",
    valid=values.host,
)
CSRF_TRUSTED_ORIGINS = _env.words(
    "CSRF_TRUSTED_ORIGINS",
    [],
    allowed="origins with their scheme and no path, like https://router.example.com",
    valid=values.origin,
)
HTTPS_ONLY = _env.flag("HTTPS_ONLY", False)
# Only then are X-Forwarded-For, -Proto and -Host of a request believed: anyone can write them.
BEHIND_PROXY = _env.flag("BEHIND_PROXY", False)

ROUTER_TRUSTED_PROXIES = _env.integer("ROUTER_TRUSTED_PROXIES", 0, low=0, high=16, unit="proxies")

SECURE_SSL_REDIRECT = HTTPS_ONLY
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS_ONLY
# No page of ours reads one by script; and with this prefix no other host of the domain can set one.
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = (
    ("__Host-sessionid", "__Host-csrftoken") if HTTPS_ONLY else ("sessionid", "csrftoken")
)
SESSION_COOKIE_AGE = 12 * 3600  # a shift
CSRF_FAILURE_VIEW = "routerproject.faults.not_accepted"
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if HTTPS_ONLY else 0
if BEHIND_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    USE_X_FORWARDED_HOST = True
X_FRAME_OPTIONS = "DENY"
SILENCED_SYSTEM_CHECKS = [
    "security.W005",  # HSTS for subdomains, and
    "security.W021",  # preloading it, are for the owner of the whole domain to decide, not for one host of it
]

MACHINE_PATHS = values.MACHINE_PATHS

# --- what machines ask ---------------------------------------------------------------------------------------------


def _access(name: str) -> str:
    return _env.text(name, "public", allowed=" or ".join(values.ACCESSES), valid=lambda value: value in values.ACCESSES)


ROUTER_METRICS_ACCESS = _access("ROUTER_METRICS_ACCESS")
ROUTER_STATUS_ACCESS = _access("ROUTER_STATUS_ACCESS")
ROUTER_MACHINE_TOKEN = _env.text(
    "ROUTER_MACHINE_TOKEN",
    "",
    allowed=f"{values.TOKEN_CHARACTERS} or more printable ASCII characters without spaces",
    valid=values.token,
    secret=True,
)
if not ROUTER_MACHINE_TOKEN:
    for _name in ("ROUTER_METRICS_ACCESS", "ROUTER_STATUS_ACCESS"):
        if globals()[_name] == "token":
            _env.problems.append(
                Problem(_name, "token", "public or staff, or set ROUTER_MACHINE_TOKEN", "there is no token")
            )
ROUTER_METRICS_LISTEN: tuple[str, int] | None = _env.read(
    "ROUTER_METRICS_LISTEN",
    None,
    cast=values.address,
    valid=bool,
    allowed="host:port to serve this process's own metrics at, like 127.0.0.1:9700; each process needs its own",
)

# --- the session path ----------------------------------------------------------------------------------------------

ROUTER_STREAM_PATHS = _env.words(
    "ROUTER_STREAM_PATHS",
    ["/v1/stream"],
    allowed="paths that begin with / and have no ? # % < >, beside the router's own pages",
    valid=values.stream_path,
)
ROUTER_ALLOWED_ORIGINS = _env.words(
    "ROUTER_ALLOWED_ORIGINS",
    [],
    allowed="origins in lower case, like https://app.example.com, or https://*.example.com for all its subdomains",
    valid=values.origin_rule,
)
ROUTER_UPSTREAM_PATH = _env.text(
    "ROUTER_UPSTREAM_PATH", "/v1/stream", allowed="a path that begins with / and has no ? # % < >", valid=values.path
)
ROUTER_MAX_MESSAGE_BYTES = _env.integer("ROUTER_MAX_MESSAGE_BYTES", 48 * MIB, low=1024, high=1024 * MIB, unit="bytes")
ROUTER_CONNECT_TIMEOUT_SECONDS = _env.seconds("ROUTER_CONNECT_TIMEOUT_SECONDS", 2, low=0.1, high=60)
ROUTER_FAILOVER_TIMEOUT_SECONDS = _env.seconds("ROUTER_FAILOVER_TIMEOUT_SECONDS", 10, low=0.1, high=300)
ROUTER_DRAIN_SECONDS = _env.seconds("ROUTER_DRAIN_SECONDS", 60, low=0, high=86_400)
ROUTER_PING_INTERVAL_SECONDS = _env.seconds("ROUTER_PING_INTERVAL_SECONDS", 20, low=0.1, high=3600)
ROUTER_PING_TIMEOUT_SECONDS = _env.seconds("ROUTER_PING_TIMEOUT_SECONDS", 20, low=0.1, high=3600)
ROUTER_STALL_TIMEOUT_SECONDS = _env.seconds("ROUTER_STALL_TIMEOUT_SECONDS", 30, low=0.1, high=3600)
ROUTER_HOLD_BYTES = _env.integer("ROUTER_HOLD_BYTES", 64 * MIB, low=0, high=1024 * MIB, unit="bytes")
ROUTER_HOLD_TOTAL_BYTES = _env.integer(
    "ROUTER_HOLD_TOTAL_BYTES", 1024 * MIB, low=0, high=1024 * 1024 * MIB, unit="bytes"
)
# The handshake's own headers are made anew for each leg, and the X-Forwarded ones are the router's to write.
_UNFORWARDABLE = ("host", "connection", "upgrade", "content-length", "transfer-encoding", "x-request-id")
ROUTER_FORWARD_HEADERS = [
    name.lower()
    for name in _env.words(
        "ROUTER_FORWARD_HEADERS",
        ["Origin", "User-Agent", "Accept-Language", "Traceparent", "Tracestate"],
        allowed="header names that pass from a client to its replica; not "
        + ", ".join(_UNFORWARDABLE)
        + ", Sec-WebSocket-… or X-Forwarded-…",
        may_be_empty=True,
        valid=lambda value: (
            value.replace("-", "").isalnum()
            and value.isascii()
            and value.lower() not in _UNFORWARDABLE
            and not value.lower().startswith(("sec-websocket-", "x-forwarded-"))
        ),
    )
]
ROUTER_UPSTREAM_AUTHORIZATION = _env.text(
    "ROUTER_UPSTREAM_AUTHORIZATION",
    "",
    allowed="the value of an Authorization header, like 'Bearer …', in printable ASCII",
    valid=lambda value: value.isascii() and value.isprintable(),
    secret=True,
)
ROUTER_UPSTREAM_CA_FILE = _env.text(
    "ROUTER_UPSTREAM_CA_FILE",
    "",
    allowed="the absolute path of a PEM file with the CA certificates that sign https replicas",
    valid=values.certificates,
)

ROUTER_REPLICA_NETWORKS: tuple[addresses.Network, ...] = _env.read(
    "ROUTER_REPLICA_NETWORKS",
    (),
    cast=values.networks,
    valid=bool,
    allowed="networks separated by commas, like 10.0.0.0/8,fd00::/8, none of them link-local, metadata, unspecified, "
    "multicast or broadcast",
)

# --- storage -------------------------------------------------------------------------------------------------------

ROUTER_HISTORY_DAYS = _env.integer("ROUTER_HISTORY_DAYS", 14, low=1, high=3650, unit="days")

DATABASE_TIMEOUT_SECONDS = databases.TIMEOUT_SECONDS
DATABASES = {
    "default": _env.read(
        "DATABASE_URL",
        databases.sqlite(str(VAR_DIR / "router.sqlite3")),
        cast=databases.from_url,
        valid=bool,
        allowed=databases.ALLOWED,
        secret=True,
    )
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = _env.text(
    "REDIS_URL",
    "",
    allowed="redis://[user:password@]host:port/number, rediss://… or unix://…",
    valid=values.redis_url,
    secret=True,
)
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": (
        # The core layer keeps at most 100 messages a channel; the pub/sub one has no bound.
        {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [REDIS_URL]}}
        if REDIS_URL
        else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    )
}

# --- Django --------------------------------------------------------------------------------------------------------

ROOT_URLCONF = "routerproject.urls"
ASGI_APPLICATION = "routerproject.asgi.application"
INSTALLED_APPS = [
    # Before staticfiles: its runserver speaks ASGI. No other command needs it, and its import costs each 0.3 s.
    *(["daphne"] if sys.argv[1:2] == ["runserver"] else []),
    "routerproject.apps.RouterProjectConfig",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "channels",
    "replicas.apps.ReplicasConfig",
    "proxy.apps.ProxyConfig",
    "dashboard.apps.DashboardConfig",
    "api.apps.ApiConfig",
    "demo.apps.DemoConfig",
]
MIDDLEWARE = [
    "routerproject.middleware.MachinePaths",
    "routerproject.middleware.ContentSecurityPolicy",
    "api.problems.ProblemDetails",
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",  # the last, it is told to be
]
# Sign-ins, throttled: signin.py.
AUTHENTICATION_BACKENDS = ["routerproject.signin.OneAtATime"]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = True
AXES_VERBOSE = AXES_ENABLE_ADMIN = False  # admin.py has ours
AXES_DISABLE_ACCESS_LOG = True  # of sign-ins that succeed Django keeps the last
AXES_CLIENT_IP_CALLABLE = "routerproject.signin.address"
AXES_USERNAME_CALLABLE = "routerproject.signin.name"
AXES_HANDLER = "routerproject.signin.Throttle"
AXES_LOCKOUT_CALLABLE = "routerproject.signin.locked_out"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = VAR_DIR / "static"
# Served from where they are in the code, so that pages have their styles with or without `collectstatic`, and
# never those of an older release. What collectstatic gathers is for a web server in front.
SERVESTATIC_USE_FINDERS = True
