"""The ASGI application: HTTP by Django, websockets by Channels, both behind ``datavisor.guards``."""

import os
import sys
from typing import Any

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured

from datavisor.guards import BoundedBody, ComeAgain, Forwarded, HeadWithoutBody, SameOrigin
from datavisor.private import own_data_dir

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "datavisor.settings")
try:
    own_data_dir(settings.DATA_DIR)
except ImproperlyConfigured as error:
    sys.exit(str(error))
http_application: Any = get_asgi_application()

from datavisor.serving import guard_daphne, when_serving  # noqa: E402  (daphne, loaded above, chooses the event loop)
from vlm import services  # noqa: E402  (needs the app registry)
from vlm.routing import websocket_urlpatterns  # noqa: E402  (as well)

guard_daphne(settings.MAX_BODY)
when_serving(services.watches.attend)

application = Forwarded(
    ProtocolTypeRouter(
        {
            "http": HeadWithoutBody(BoundedBody(http_application, limit=settings.MAX_BODY)),
            "websocket": SameOrigin(ComeAgain(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))),
        }
    ),
    proxies=settings.PROXIES,
)
