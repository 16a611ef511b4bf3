"""The settings of served tests, with a brake for runs: for servers and commands that tests start and want to catch at work."""

from tests.served import *  # noqa: F403
from tests.served import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.brake.BrakeConfig"]
