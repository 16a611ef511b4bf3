"""The product's settings with a brake for its runs: for servers and commands that tests start and want to catch at work."""

from datavisor.settings import *  # noqa: F403
from datavisor.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.brake.BrakeConfig"]
