"""What an ASGI server runs: `daphne routerproject.asgi:application`. HTTP goes to Django, streams to the proxy."""

import asyncio
import os

import django
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "routerproject.settings")
django.setup(set_prefix=False)

from dashboard import consumers  # noqa: E402  (models need the setup above)
from dashboard.routing import watching  # noqa: E402
from proxy import daphne, memory, process, routing  # noqa: E402
from routerproject.checks import refuse_to_start  # noqa: E402

refuse_to_start()

# Now, and not at the first request or the admin's first probe, while sessions run.
from replicas import probe  # noqa: E402, F401
from routerproject import urls  # noqa: E402, F401


async def end() -> None:
    await asyncio.gather(consumers.end(), process.end())


daphne.install(at_start=process.begin, at_drain=process.drain, at_end=end)

application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": routing.application(watching),
        "lifespan": process.lifespan,  # for other servers than Daphne, which has none
    }
)

memory.settle()
