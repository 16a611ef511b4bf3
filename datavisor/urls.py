"""The addresses of the page, the admin and the log-in."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("vlm.urls")),
]
