"""The page of accuracy at a million samples with 10,000 decisions: ``python -m benchmarks.accuracy --samples 1000000 --json``.

Requests go through the whole Django stack by its test client; no network and no browser are in the figures.
"""

import argparse
import os
import sys
import tempfile
from typing import Any

FOLDER = tempfile.TemporaryDirectory(prefix="datavisor-benchmark-")
os.environ["DATAVISOR_DATA_DIR"] = FOLDER.name
os.environ["DJANGO_SETTINGS_MODULE"] = "datavisor.settings"

import django  # noqa: E402

django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import Client  # noqa: E402

from benchmarks.million import WORDS, add_samples, answer_samples  # noqa: E402
from benchmarks.report import machine, median_ms, show  # noqa: E402
from vlm import services  # noqa: E402
from vlm.models import Dataset  # noqa: E402
from vlm.process import sample_store  # noqa: E402
from vlm.samples import Label, editing  # noqa: E402
from vlm.services import known  # noqa: E402


def measure(samples: int, decisions: int) -> dict[str, Any]:
    call_command("migrate", verbosity=0)
    dataset = Dataset.objects.create(name="million", root=FOLDER.name, format="folder", sample_count=samples)
    add_samples(sample_store(), dataset.pk, samples)
    answer_samples(sample_store(), dataset.pk, 1, 1.0)
    for dimension in WORDS:
        decide(dataset, dimension, decisions // len(WORDS))
    client = Client(HTTP_HOST="localhost")
    client.force_login(User.objects.create_superuser("benchmark"))
    address = f"/datasets/{dataset.pk}/accuracy"

    def get() -> None:
        response = client.get(address)
        if response.status_code != 200:
            raise SystemExit(f"{address} answered {response.status_code}")

    def after_a_decision() -> None:
        for kept in known._known.values():
            kept.results = {key: value for key, value in kept.results.items() if key[0] != next(iter(WORDS))}
        get()

    def after_a_run() -> None:
        known._known.clear()
        get()

    figures: dict[str, Any] = {"machine": machine(), "samples": samples, "decisions": decisions}
    figures["accuracy of all dimensions, ms"] = median_ms(get, repeat=9)
    figures["the same after a decision, ms"] = median_ms(after_a_decision, repeat=5)
    figures["the same after a run, all answers counted anew, ms"] = median_ms(after_a_run, repeat=3)
    figures["drawing 100 images for review, ms"] = median_ms(
        lambda: services.review.draw(dataset=dataset, dimension="weather", size=100), repeat=3
    )
    sample_store().close()
    return figures


def decide(dataset: Dataset, dimension: str, count: int) -> None:
    """Draw ``count`` samples and label them, one in ten otherwise than the model."""
    words = services.accuracy.words_of(dimension)
    batch = services.review.draw(dataset=dataset, dimension=dimension, size=count)
    rows = services.review.drawn_rows(dataset=dataset, dimension=dimension, batch=batch)
    labels = [
        Label(
            drawn.sample_id,
            dimension,
            words[place % 2] if place % 10 == 0 else drawn.stratum,
            drawn.probability,
            drawn.stratum,
            batch,
        )
        for place, (_, drawn) in enumerate(rows)
    ]
    with sample_store().write() as cursor:
        editing.labels_add(cursor, dataset_id=dataset.pk, labels=labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--decisions", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    show(measure(options.samples, options.decisions), as_json=options.json)
    FOLDER.cleanup()


if __name__ == "__main__":
    sys.exit(main())
