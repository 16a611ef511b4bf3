"""The addresses of the page, the admin and the log-in link."""

from django.contrib import admin
from django.urls import include, path

from vlm.views.accounts import enter

urlpatterns = [
    path("admin/", admin.site.urls),
    path("accounts/enter/", enter, name="enter"),
    path("", include("vlm.urls")),
]

handler500 = "vlm.views.problems.broken"
