"""The addresses of the page, the admin and the log-in link."""

from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.urls import include, path

from vlm.views.accounts import Enter

urlpatterns = [
    path("admin/", admin.site.urls),
    path("accounts/enter/", login_not_required(Enter.as_view()), name="enter"),
    path("", include("vlm.urls")),
]
