"""The ``datavisor`` command: Django's management commands under the project's own name."""

import os
import sys

from datavisor import __version__


def main() -> int:
    """Run the management command that ``sys.argv`` names and return its exit code: 2 for a setting that is wrong."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "datavisor.settings")
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    from datavisor.terminal import speak_any_terminal

    speak_any_terminal()
    if sys.argv[1:] in (["--version"], ["version"]):
        sys.stdout.write(f"DataVisor {__version__}\n")
        return 0
    try:
        settings.DEBUG  # noqa: B018  (reads them all; Django itself would go on without some of its commands)
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0
