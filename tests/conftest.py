"""Every test has a data folder of its own; nothing reaches a hub."""

import os
import tempfile

# Before Django reads its settings: they make the data folder when they are imported.
os.environ["DATAVISOR_DATA_DIR"] = tempfile.mkdtemp(prefix="datavisor-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"
for name in [name for name in os.environ if name.startswith("DATAVISOR_") and name != "DATAVISOR_DATA_DIR"]:
    del os.environ[name]
