#!/usr/bin/env python
"""Django's command line, run from a checkout; the installed package has the same as ``datavisor``."""

import sys

from datavisor.cli import main

if __name__ == "__main__":
    sys.exit(main())
