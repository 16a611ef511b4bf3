"""``python -m datavisor`` is the ``datavisor`` command."""

import sys

from datavisor.cli import main

sys.exit(main())
