"""The router's own setup for the bench: a fresh folder with its database, and the one replica of the bench in it.

Done by the commands that operators use, once a run; each start of a router gets a copy. Only its process is measured:
the prober has looked once and is not running.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.load import Load
from bench.processes import Unwell, environment

ROOT = Path(__file__).resolve().parents[1]
SETUP_SECONDS = 60.0

REPLICAS = """\
router:
  replicas:
    - url: http://127.0.0.1:{port}
      name: bench
      max_sessions: 100000
"""


def prepare(folder: Path, load: Load) -> Path:
    """Make the folder that routers get a copy of. `load` answers the health probe. Raises Unwell."""
    made = folder / "router"
    made.mkdir()
    listing = folder / "replicas.yaml"
    listing.write_text(REPLICAS.format(port=load.address[1]))
    for arguments in (["migrate"], ["loadreplicas", str(listing)], ["runhealthchecks", "--once"]):
        _manage(made, arguments, load)
    return made


def copy(made: Path) -> Path:
    """A folder of its own for one router process."""
    fresh = Path(tempfile.mkdtemp(prefix="router-", dir=made.parent))
    shutil.copytree(made, fresh, dirs_exist_ok=True)
    return fresh


def router_environment(var: Path) -> dict[str, str]:
    return environment(ROUTER_VAR_DIR=str(var), DJANGO_SETTINGS_MODULE="routerproject.settings")


def _manage(var: Path, arguments: list[str], load: Load) -> None:
    command = [sys.executable, "manage.py", *arguments]
    with (var.parent / "manage.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=router_environment(var), stdout=log, stderr=log)
    try:
        load.run_until(lambda: process.poll() is not None, SETUP_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    if process.returncode:
        text = (var.parent / "manage.log").read_text()
        raise Unwell(f"manage.py {' '.join(arguments)} exited {process.returncode}:\n{text}")
