"""What goes to FiftyOne comes back as labels: the page's own lines, on a real export, through the real importer.

FiftyOne itself, which needs a MongoDB, is not run: a stand-in gives what those lines ask of its data set.
"""

import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.core.management import call_command

from tests.children import ROOT
from tests.page.conftest import dataset, sample_ids  # noqa: F401  (fixtures)
from vlm import services
from vlm.models import Dataset
from vlm.samples import SampleFilter

pytestmark = pytest.mark.django_db(transaction=True)


class Sample:
    """A sample of FiftyOne: fields by name, a field that others have and this one lacks is ``None``."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields, self.filepath = fields, fields["filepath"]

    def __getitem__(self, name: str) -> Any:
        found = self.fields.get(name)
        return SimpleNamespace(**found) if found is not None else None


class Samples:
    def __init__(self, samples: list[dict[str, Any]]) -> None:
        self.samples = samples

    def match_tags(self, tag: str) -> Iterator[Sample]:
        return (Sample(one) for one in self.samples if tag in one["tags"])


def test_the_way_back(
    dataset: Dataset,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, third = sample_ids(dataset)[:3]
    for sample, word in ((first, "sunny"), (second, "rainy"), (third, "foggy")):
        services.tags.add(dataset=dataset, filter=SampleFilter(ids=(sample,)), tag=word, user=None)
    call_command("export_tags", dataset.name, format="fiftyone", output=tmp_path / "export.zip")
    with zipfile.ZipFile(tmp_path / "export.zip") as archive:
        samples = json.loads(archive.read("samples.json"))["samples"]
    by_id = {one["datavisor_id"]: one for one in samples}
    by_id[first]["tag_weather"]["label"] = "cloudy"  # mended there
    for number in (first, second):
        by_id[number]["tags"].append("checked")
    # As another machine would write it.
    by_id[second]["filepath"] = f"/elsewhere/{Path(by_id[second]['filepath']).name}"
    stand_in = ModuleType("fiftyone")
    stand_in.load_dataset = lambda name: Samples(samples)
    monkeypatch.setitem(sys.modules, "fiftyone", stand_in)
    monkeypatch.chdir(tmp_path)
    back = (ROOT / "docs" / "fiftyone.md").read_text().split("## And back")[1]
    exec(re.findall(r"^```python\n(.*?)^```", back, re.MULTILINE | re.DOTALL)[0], {})
    call_command("import_labels", dataset.name, "labels.csv")

    def labelled(word: str) -> list[int]:
        found = services.samples.page(dataset=dataset, filter=SampleFilter(labelled=(f"weather:{word}",)))
        return [sample.id for sample in found.samples]

    assert (labelled("cloudy"), labelled("rainy"), labelled("foggy")) == ([first], [second], [])
