"""What an import would do to a data set that is there, told before it is done, and after."""

from django.conf import settings

from vlm.formats import Scan
from vlm.models import Dataset
from vlm.process import sample_store
from vlm.samples import Imported
from vlm.samples.ingest import Report, preview_rows, staged


def preview(found: Scan, *, name: str, report: Report = lambda _: None) -> Imported:
    """Read a data set and say what importing it under ``name`` would change; nothing is written for good."""
    dataset = Dataset.objects.filter(name=name, root=str(found.root)).first()
    if dataset is None:
        total = 0
        for total, _ in enumerate(found, start=1):
            report(total)
        return Imported(added=total, total=total)
    with staged(found, settings.DATA_DIR, report=report) as source:
        return preview_rows(sample_store(), dataset_id=dataset.pk, source=source)


def summary(done: Imported) -> dict[str, int]:
    """Return how many samples are new, known, changed (another picture), renamed, back again and gone."""
    there = done.total - done.missing
    return {
        "new": done.added,
        "known": there - done.added,
        "changed": done.replaced,
        "renamed": done.moved,
        "back": done.returned,
        "gone": done.missing,
    }
