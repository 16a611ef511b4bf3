"""Server time of the page at a million samples: ``python -m benchmarks.page --samples 1000000 --json``.

Requests go through the whole Django stack by its test client; no network and no browser are in the figures.
"""

import argparse
import os
import re
import statistics
import sys
import tempfile
import time
from typing import Any

FOLDER = tempfile.TemporaryDirectory(prefix="datavisor-benchmark-")
os.environ["DATAVISOR_DATA_DIR"] = FOLDER.name
os.environ["DJANGO_SETTINGS_MODULE"] = "datavisor.settings"

import django  # noqa: E402

django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import Client  # noqa: E402

from benchmarks.million import add_samples, answer_samples  # noqa: E402
from benchmarks.report import machine, median_ms, show  # noqa: E402
from vlm import services  # noqa: E402
from vlm.models import Dataset  # noqa: E402
from vlm.process import sample_store  # noqa: E402
from vlm.samples import SampleFilter  # noqa: E402


def measure(samples: int) -> dict[str, Any]:
    call_command("migrate", verbosity=0)
    dataset = Dataset.objects.create(name="million", root=FOLDER.name, format="folder", sample_count=samples)
    add_samples(sample_store(), dataset.pk, samples)
    answer_samples(sample_store(), dataset.pk, 1, 0.75)
    client = Client(HTTP_HOST="localhost")
    client.force_login(User.objects.create_superuser("benchmark"))

    def get(address: str, **headers: str) -> str:
        response = client.get(address, headers=headers)
        if response.status_code != 200:
            raise SystemExit(f"{address} answered {response.status_code}")
        return response.content.decode()

    base = f"/datasets/{dataset.pk}/"
    first = get(base)
    following = re.search(r'"(/[^"]*cells\?[^"]*)"', first)
    if following is None:
        raise SystemExit("The grid has no next page.")
    next_page = following[1].replace("&amp;", "&")
    swap = {"HX-Request": "true"}

    def fresh(query: str = "", **headers: str) -> str:
        """Get the page as after a change of the store, when no count of the facets is known."""
        services.samples._counts.clear()
        return get(base + query, **headers)

    figures: dict[str, Any] = {"machine": machine(), "samples": samples}
    figures["data set, whole page, ms"] = median_ms(lambda: get(base), repeat=5)
    figures["next page of the grid, ms"] = median_ms(lambda: get(next_page, **swap), repeat=9)
    figures["data set, whole page, facets counted anew, ms"] = median_ms(fresh, repeat=5)

    def changed(query: str, **headers: str) -> str:
        """Change the filter: what belongs to the page before is known, the new filter's counts are not."""
        services.samples._counts.clear()
        services.samples.facets(dataset=dataset, filter=SampleFilter())
        start = time.perf_counter()
        answer = get(base + query, **headers)
        times.append((time.perf_counter() - start) * 1000)
        return answer

    for name, query in {
        "one word": "?all=dark",
        "three words": "?all=dark&all=outdoor&all=crowded",
        "part of the file name": "?q=cam7",
    }.items():
        times: list[float] = []
        for _ in range(6):
            changed(query, **swap)
        figures[f"changed filter: {name}, ms"] = round(statistics.median(times[1:]), 2)
    figures["data sets, ms"] = median_ms(lambda: get("/"), repeat=5)
    figures["whole page, kB"] = round(len(first.encode()) / 1000)
    sample_store().close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    show(measure(options.samples), as_json=options.json)
    FOLDER.cleanup()


if __name__ == "__main__":
    sys.exit(main())
