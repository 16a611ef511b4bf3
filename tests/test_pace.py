"""How long a run will take: runs of this machine say it, else what was measured on one like it, and it is said which."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client

from vlm import services
from vlm.models import Dataset, TaggingRun
from vlm.moondream.hub import MODEL
from vlm.runs import pace
from vlm.runs.options import RunOptions

from .page.conftest import admin as admin
from .page.conftest import dataset as dataset

README = Path(__file__).resolve().parent.parent / "README.md"
BF16 = "fpu sse2 avx avx2 avx512f avx512_bf16 avx512_vnni"
JSON = {"Accept": "application/json"}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: object) -> Iterator[Path]:
    """A machine without a GPU, with the processor that the file names; the published model."""
    settings.VLM_MODEL, settings.VLM_DEVICE, settings.VLM_DTYPE = MODEL, "auto", "auto"  # type: ignore[attr-defined]
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(pace, "PROCESSORS", file)
    monkeypatch.setattr(pace, "NVIDIA", tmp_path / "nvidia")
    monkeypatch.setattr(pace.sys, "platform", "linux")
    pace.kind_of_cpu.cache_clear()
    yield file
    pace.kind_of_cpu.cache_clear()


def flags(file: Path, text: str) -> None:
    file.write_text(f"processor\t: 0\nflags\t\t: {text}\n\nprocessor\t: 1\nflags\t\t: {text}\n")


@pytest.mark.parametrize(
    ("processor", "dtype", "detail", "found"),
    [
        (BF16, "auto", "full", (8400, 23_000)),
        (BF16, "bfloat16", "low", (8100, None)),
        (BF16, "int8", "full", (5400, 16_000)),
        (BF16, "float32", "full", None),
        ("fpu avx avx2", "auto", "full", (30_000, 54_000)),
        ("fpu avx avx2", "auto", "low", (51_000, None)),
        ("fpu avx avx2 avx512f", "auto", "full", None),  # nobody measured one
        ("fpu avx avx2 avx_vnni", "int8", "full", None),
        ("fpu sse2", "auto", "full", None),
    ],
)
def test_a_machine_like_a_measured_one(
    dataset: Dataset, machine: Path, settings: object, processor: str, dtype: str, detail: str, found: tuple[float, float] | None
) -> None:  # fmt: skip
    flags(machine, processor)
    settings.VLM_DTYPE = dtype  # type: ignore[attr-defined]
    expected = services.runs.expected(dataset=dataset, options=RunOptions(detail=detail), count=1000)  # type: ignore[arg-type]
    if found is None:
        assert expected is None
    else:
        assert expected is not None
        assert (expected.seconds, expected.most) == pytest.approx(found) if found[1] else expected.most is None
        assert "AMD EPYC" in expected.measured_on


@pytest.mark.parametrize("what", ["gpu", "mac", "other model", "generated", "nothing told"])
def test_of_other_machines_and_models_nothing_is_said(
    dataset: Dataset, machine: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    if what != "nothing told":
        flags(machine, BF16)
    if what == "gpu":
        pace.NVIDIA.mkdir()
    if what == "mac":
        monkeypatch.setattr(pace.sys, "platform", "darwin")
    options = RunOptions(
        detail="full", model="somebody/else" if what == "other model" else "", mode="generate" if what == "generated" else "score"
    )  # fmt: skip
    assert services.runs.expected(dataset=dataset, options=options, count=7) is None
    if what == "gpu":  # asked for the processor all the same
        on_cpu = services.runs.expected(dataset=dataset, options=RunOptions(detail="full", device="cpu"), count=1)
        assert on_cpu is not None


def test_the_figures_are_those_of_the_readme() -> None:
    rows = [
        line.split("|")[1:-1]
        for line in README.read_text().splitlines()
        if line.startswith("| ") and "AMD EPYC" in line
    ]
    rows += [line.split("|")[1:-1] for line in README.read_text().splitlines() if line.startswith("| the same | int8")]
    said = {
        (form.strip(), detail): [float(number) for number in re.findall(r"[\d.]+(?= s|(?= to \d+ s))", " ".join(cells))]
        for _, form, full, small, low, _ in rows
        for detail, cells in (("full", (small, full)), ("low", (low,)))
    }
    for (_, form, detail), figure in pace.MEASURED.items():
        assert {figure.least, figure.most} <= set(said[form, detail]), (form, detail, said)


def test_a_run_of_this_machine_counts_before_any_table(dataset: Dataset, machine: Path, admin: Client) -> None:
    flags(machine, BF16)
    address = f"/datasets/{dataset.pk}/auto-tag/count"
    told = admin.get(address, {"scope": "all", "detail": "full"}, headers=JSON).json()
    assert (told["count"], told["seconds"], told["most"]) == (7, pytest.approx(7 * 8.4), pytest.approx(7 * 23))
    panel = admin.get(address, {"scope": "all", "detail": "full"}, headers={"HX-Request": "true"}).content.decode()
    assert "about 59 s to 3 min" in panel
    assert "measured on 2 cores of an AMD EPYC with AVX-512 BF16" in panel
    assert "larger ones taking longer" in panel
    TaggingRun.objects.create(
        dataset=dataset, status="completed", model=MODEL, detail="full", vocabulary_hash="0" * 64, processed=10, total=10, seconds=20
    )  # fmt: skip
    told = admin.get(address, {"scope": "all", "detail": "full"}, headers=JSON).json()
    assert (told["seconds"], told["most"], told["measured_on"]) == (14, None, "")
    assert (
        b"measured on"
        not in admin.get(address, {"scope": "all", "detail": "full"}, headers={"HX-Request": "true"}).content
    )


def test_a_long_run_is_asked_about_with_the_machine_it_was_measured_on(
    dataset: Dataset, machine: Path, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags(machine, BF16)
    monkeypatch.setattr("vlm.views.autotag.ASK_ABOVE_SECONDS", 30)
    monkeypatch.setattr("vlm.services.runs.launch", lambda run: None)
    form = {"within": "dataset", "scope": "all", "detail": "full"}
    asked = admin.post(f"/datasets/{dataset.pk}/auto-tag", form).content.decode()
    assert "about <b>59 s to 3 min</b>" in asked
    assert "measured on" in asked
    assert not TaggingRun.objects.exists()
    admin.post(f"/datasets/{dataset.pk}/auto-tag", form | {"confirmed": "1"})
    assert TaggingRun.objects.count() == 1
