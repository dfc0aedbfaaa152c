"""A pytest plugin, named in pyproject.toml: no setting of the developer's own reaches the tests, nor theirs the tests'.

Loaded with -p, because it must run before pytest-django reads the settings.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

OURS = ("ROUTER_", "LOG_")
NAMES = (
    "SECRET_KEY", "DEBUG", "ALLOWED_HOSTS", "HTTPS_ONLY", "BEHIND_PROXY", "CSRF_TRUSTED_ORIGINS", "DATABASE_URL",
    "REDIS_URL",
)  # fmt: skip

for name in list(os.environ):
    if name in NAMES or name.startswith(OURS):
        del os.environ[name]

VAR_DIR = tempfile.mkdtemp(prefix="router-tests-")
os.environ["ROUTER_VAR_DIR"] = VAR_DIR
os.environ["DJANGO_SETTINGS_MODULE"] = "routerproject.settings"
atexit.register(shutil.rmtree, VAR_DIR, ignore_errors=True)
