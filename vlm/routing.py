"""The websocket addresses."""

from django.urls import URLPattern, path, re_path

import vlm.converters  # noqa: F401  (<id:…>)
from vlm.consumers import Nowhere, ProgressConsumer

websocket_urlpatterns: list[URLPattern] = [
    path("ws/datasets/<id:dataset_id>/progress/", ProgressConsumer.as_asgi()),
    re_path("", Nowhere.as_asgi()),
]
