"""The settings that pytest runs with: the product's own, read where nothing of the developer's machine can reach them.

Each process that imports this has a data folder of its own, which ends with it. So two runs of the tests in one checkout
never meet, and neither ``data/`` nor a variable of the shell decides what a test sees. Servers and commands that the tests
start are given their environment by :func:`tests.children.environment`.
"""

import atexit
import os
import shutil
import tempfile

FOREIGN = (
    "DATAVISOR_",
    "DATABASE_",
    "DJANGO_",
    "HF_",
    "HUGGINGFACE_",
    "TRANSFORMERS_",
    "RAY_",
    "AWS_",
    "GOOGLE_",
    "AZURE_",
)
KEPT = ("DATAVISOR_CHROMIUM", "DJANGO_SETTINGS_MODULE")
# How wide and how colourful a terminal is would change what commands print.
TERMINAL = ("COLUMNS", "LINES", "FORCE_COLOR", "CLICOLOR_FORCE", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")

# Where to run on PostgreSQL, what ``DATABASE_URL`` would be: for the tests alone, which make a database there and drop it. No
# process that they start gets it from here; ``tests.database.database_url`` says what one needs to see the same.
_server = os.environ.pop("TESTS_DATABASE_URL", "")

for _name in list(os.environ):
    if _name in TERMINAL or (_name.startswith(FOREIGN) and _name not in KEPT):
        del os.environ[_name]

_owner = os.getpid()
_folder = tempfile.mkdtemp(prefix="datavisor-tests-")


@atexit.register
def _remove() -> None:
    if os.getpid() == _owner:  # a forked child's end is not ours
        shutil.rmtree(_folder, ignore_errors=True)


os.environ |= {
    "DATAVISOR_DATA_DIR": f"{_folder}/data",
    "DATAVISOR_STORE_WAIT": "200",  # the store is free in the end, however slow the machine
    "HF_HOME": f"{_folder}/hub",
    "HF_HUB_OFFLINE": "1",  # nothing reaches a hub
    # Small weights and small stores gain nothing from threads, and waiting for one another costs them dearly on a busy
    # machine. The tests of the store itself have two.
    "OMP_NUM_THREADS": "1",
    "DATAVISOR_DUCKDB_THREADS": "1",
}

from datavisor.settings import *  # noqa: E402, F403  (only now: importing them reads the environment)
from datavisor.settings import DATA_DIR, DATABASES, env  # noqa: E402

if _server:
    DATABASES["default"] = env.db_url_config(_server) | {"ENGINE": "datavisor.postgres"}
    DATABASES["default"]["TEST"] = {"NAME": f"datavisor_tests_{_owner}"}
else:
    # A file: a run's thread has a connection of its own, which a database in memory could not share.
    DATABASES["default"]["TEST"] = {"NAME": str(DATA_DIR / "test.sqlite3")}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # what makes passwords safe makes tests slow
