"""Pictures laid out as folders, and sidecars beside them: by command, and never over what is there."""

from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from tests.page.conftest import dataset, sample_ids  # noqa: F401  (fixtures)
from vlm import services
from vlm.models import Dataset
from vlm.samples import SampleFilter

pytestmark = pytest.mark.django_db(transaction=True)


def tagged(dataset: Dataset) -> list[Path]:  # noqa: F811
    """Tag the first picture sunny, and return the pictures."""
    services.tags.add(dataset=dataset, filter=SampleFilter(ids=(sample_ids(dataset)[0],)), tag="sunny", user=None)
    return sorted(path for path in Path(dataset.root).iterdir() if path.suffix == ".png")


def below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_links_and_copies_by_word(
    dataset: Dataset,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = [path.name for path in tagged(dataset)]
    first = services.samples.page(dataset=dataset, filter=SampleFilter(all_of=("sunny",))).samples[0].path
    links, copies = tmp_path / "links", tmp_path / "copies"
    call_command("export_images", dataset.name, into=links, by=["weather"])
    assert below(links) == sorted(
        [f"sunny/{first}", *(f"none/{name}" for name in [*names, "broken-0.jpg"] if name != first)]
    )
    assert (links / "sunny" / first).is_symlink()
    assert (links / "sunny" / first).samefile(Path(dataset.root) / first)
    call_command("export_images", dataset.name, "--filter", "all=sunny", "--copy", into=copies)
    assert below(copies) == [first]
    assert not (copies / first).is_symlink()
    (copies / first).write_text("mine")
    capsys.readouterr()
    call_command("export_images", dataset.name, "--filter", "all=sunny", "--copy", into=copies)
    assert "0 pictures made; 1 were there already" in capsys.readouterr().out
    assert (copies / first).read_text() == "mine"


def test_where_pictures_are_not_laid_out(dataset: Dataset, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(CommandError, match="There is no “colour”"):
        call_command("export_images", dataset.name, into=tmp_path / "x", by=["colour"])
    with pytest.raises(CommandError, match="within the data set"):
        call_command("export_images", dataset.name, into=Path(dataset.root) / "x")
    assert not (tmp_path / "x").exists()


def test_sidecars_lie_beside_pictures_and_over_none(
    dataset: Dataset,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pictures = tagged(dataset)
    before = {path: path.read_bytes() for path in pictures}
    kept = pictures[0].with_name(f"{pictures[0].name}.xmp")
    kept.write_text("somebody's own")
    call_command("write_sidecars", dataset.name)
    assert "6 sidecars made; 1 were there already and stay as they are" in capsys.readouterr().out
    assert kept.read_text() == "somebody's own"
    made = [path.read_text() for path in Path(dataset.root).glob("*.xmp")]
    assert len(made) == 7
    assert {path: path.read_bytes() for path in pictures} == before
    call_command("write_sidecars", dataset.name, "--filter", "all=sunny", into=tmp_path / "aside")
    assert [">sunny<" in (tmp_path / "aside" / name).read_text() for name in below(tmp_path / "aside")] == [True]
    again = services.datasets.import_folder(path=Path(dataset.root), name=dataset.name)
    assert (again.imported.added, again.imported.missing) == (0, 0)
