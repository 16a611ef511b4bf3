"""Finding a folder below the import roots: what lies there, what a path that is being typed could become, and no more."""

import os
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse

from tests.images import make_images
from vlm import services
from vlm.datasets.importing import name_of
from vlm.formats import ImportFailed
from vlm.roots import LocalRoot

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


@pytest.fixture
def root(tmp_path: Path, settings: object) -> Path:
    root = tmp_path / "roots" / "pictures"
    for name in ("cam 10", "cam 9", "Camera", ".hidden", "other"):
        (root / name).mkdir(parents=True)
    (root / "cam 9" / "night").mkdir()
    (root / "labels.json").write_text("{}")
    (root / "note.txt").write_text("")
    (root / "out").symlink_to(tmp_path)
    (root / "in").symlink_to(root / "other")
    settings.IMPORT_ROOTS = [root]  # type: ignore[attr-defined]
    return root


def names(path: object) -> list[str]:
    return [entry.name for entry in services.datasets.folders(path=str(path)).entries]


def test_folders_come_in_natural_order_and_lead_nowhere_else(root: Path) -> None:
    found = services.datasets.folders(path="")
    assert [entry.name for entry in found.entries] == ["cam 9", "cam 10", "Camera", "in", "other", "labels.json"]
    assert (found.folder, found.above, found.more) == (str(root), "", False)
    below = services.datasets.folders(path=str(root / "cam 9"))
    assert ([entry.path for entry in below.entries], below.above) == ([str(root / "cam 9" / "night")], str(root))


def test_a_path_that_is_typed_is_completed(root: Path, tmp_path: Path) -> None:
    assert names(root / "CAM") == ["cam 9", "cam 10", "Camera"]
    assert names(f"{root}/.h") == [".hidden"]
    assert names("oth") == ["other"]
    assert names(tmp_path / "roo") == [str(root)]  # on the way to a root
    assert names("x" * 9000) == []
    for outside in (tmp_path, tmp_path / "x", "/etc", "/nowhere", "../..", root / "out", "\0", "~root"):
        with pytest.raises(ImportFailed, match="Choose a folder below"):
            services.datasets.folders(path=str(outside))


def test_of_several_roots_one_is_chosen_first(root: Path, tmp_path: Path, settings: object) -> None:
    settings.IMPORT_ROOTS = [root, tmp_path / "second"]  # type: ignore[attr-defined]
    assert names("") == [str(root), str(tmp_path / "second")]
    settings.IMPORT_ROOTS = []  # type: ignore[attr-defined]
    with pytest.raises(ImportFailed, match="DATAVISOR_IMPORT_ROOTS"):
        services.datasets.folders(path="/")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_told(root: Path) -> None:
    (root / "other").chmod(0)
    with pytest.raises(ImportFailed, match="cannot be read"):
        services.datasets.folders(path=str(root / "other"))
    (root / "other").chmod(0o700)


def test_a_folder_of_many_is_listed_in_part(root: Path) -> None:
    for number in range(250):
        (root / "other" / f"{number}").mkdir()
    found = services.datasets.folders(path=str(root / "other"))
    assert (len(found.entries), found.entries[2].name, found.more) == (200, "2", True)


def test_the_page_lists_and_fills_in(root: Path, admin_client: Client) -> None:
    page = admin_client.get(reverse("import_new"), {"path": str(root / "cam 9")}).content.decode()
    assert f'value="{root}/cam 9"' in page
    assert "night/" in page
    typed = admin_client.get(reverse("import_folders"), {"path": str(root / "cam")}, headers={"HX-Request": "true"})
    assert "cam 10/" in typed.content.decode()
    assert "<input" not in typed.content.decode()
    picked = admin_client.get(reverse("import_folders"), {"path": str(root), "pick": "1"}).content.decode()
    assert f'value="{root}"' in picked
    assert "Choose a folder below" in admin_client.get(reverse("import_folders"), {"path": "/etc"}).content.decode()
    asked = {"path": str(root / "oth")}
    answer = admin_client.get(reverse("import_folders"), asked, headers={"Accept": "application/json"})
    assert answer.json()["entries"] == [{"name": "other", "path": str(root / "other"), "is_folder": True}]
    refused = admin_client.get(reverse("import_folders"), {"path": "/etc"}, headers={"Accept": "application/json"})
    assert refused.status_code == 400


def test_a_folder_that_only_says_images_is_called_with_those_around_it(tmp_path: Path) -> None:
    assert name_of(LocalRoot("/srv/street/train/images")) == "street/train/images"
    assert name_of(LocalRoot("/srv/street")) == "street"
    assert name_of(LocalRoot("/images")) == "images"
    assert name_of(LocalRoot("/")) == "images"
    folder = make_images(tmp_path / "street" / "images", 1)
    done = services.datasets.import_folder(path=folder)
    assert done.dataset is not None
    assert done.dataset.name == "street/images"
    services.datasets.rename(dataset=done.dataset, name="Street")
    again = services.datasets.import_folder(path=folder)
    assert again.dataset == done.dataset
