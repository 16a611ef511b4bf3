"""The websocket addresses."""

from django.urls import URLPattern, path

from vlm.consumers import ProgressConsumer

websocket_urlpatterns: list[URLPattern] = [
    path("ws/datasets/<int:dataset_id>/progress/", ProgressConsumer.as_asgi()),
]
