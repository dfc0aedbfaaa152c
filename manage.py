#!/usr/bin/env python3
"""Django's command line for this project: `manage.py check`, `migrate`, `runhealthchecks`, `loadreplicas`, …"""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "routerproject.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError as exc:
        raise SystemExit("Django is not installed here: run `make install`, then use .venv/bin/python.") from exc
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
