"""The product's settings for servers that tests log in to: what makes passwords safe makes tests slow."""

from datavisor.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
