"""The ``datavisor`` command: Django's management commands under the project's own name."""

import os
import sys


def main() -> int:
    """Run the management command that ``sys.argv`` names and return its exit code."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "datavisor.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
    return 0
