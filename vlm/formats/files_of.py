"""The files of a root, for an import and for exports that read what was imported."""

from vlm.formats.files import Files
from vlm.formats.local_files import LocalFiles
from vlm.formats.object_files import ObjectFiles
from vlm.roots import LocalRoot, ObjectRoot, Root


def files_of(root: Root) -> Files:
    if isinstance(root, ObjectRoot):
        return ObjectFiles(root)
    assert isinstance(root, LocalRoot)  # noqa: S101 - there are two kinds
    return LocalFiles(root.path)
