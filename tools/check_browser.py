"""Say plainly, before the tests start, when the browser that they drive is missing."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.browser import BrowserMissing, find_chromium

try:
    find_chromium()
except BrowserMissing as error:
    sys.exit(str(error))
