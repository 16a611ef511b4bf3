"""Reading data sets: folders of images, COCO JSON and YOLO, as a stream of sample records.

Knows neither Django nor the store. Images are not decoded here; see ``vlm.imaging``.
"""

from pathlib import Path
from typing import get_args

from vlm.importing.coco import find_annotation_files, scan_coco
from vlm.importing.files import Files, Refused
from vlm.importing.folder import scan_folder
from vlm.importing.records import Annotation, Format, ImportFailed, SampleRecord, Scan, Skip
from vlm.importing.yolo import find_descriptions, scan_yolo

__all__ = ["Annotation", "Format", "ImportFailed", "SampleRecord", "Scan", "Skip", "scan"]


def scan(path: Path, format: str = "auto") -> Scan:
    """Look over a data set and return it ready to be read.

    Args:
        path: its folder; or the COCO JSON or YAML file in it.
        format: ``auto``, ``folder``, ``coco`` or ``yolo``.

    Raises:
        ImportFailed: there is no such folder, no image in it, its JSON or YAML is unreadable, or it is not clear
            which format it has.
    """
    if format not in ("auto", *get_args(Format)):
        raise ImportFailed(f"“{format}” is no format. Choose auto, folder, coco or yolo.")
    try:
        path = path.expanduser().resolve()
        if path.is_file():
            return _scan_file(path, format)
        if not path.is_dir():
            raise ImportFailed(f"There is no folder “{path}”. Check the path.")
        return _scan_folder(path, format)
    except (OSError, RuntimeError, ValueError, Refused) as error:  # resolving loops and unknown homes; NUL in a path
        raise ImportFailed(f"“{path}” cannot be read: {error}. Check the path and its rights.") from error


def _scan_file(path: Path, format: str) -> Scan:
    """Read the data set that a JSON or YAML file describes; its root is the folder around ``annotations``."""
    suffix = path.suffix.lower()
    root = path.parent.parent if path.parent.name.lower() in ("annotations", "labels") else path.parent
    if suffix == ".json" and format in ("auto", "coco"):
        return scan_coco(root, [path.relative_to(root).as_posix()])
    if suffix in (".yaml", ".yml") and format in ("auto", "yolo"):
        return scan_yolo(path.parent, path.name)
    raise ImportFailed(f"“{path}” is no folder. Give the folder of the data set, a COCO JSON, or a YOLO data.yaml.")


def _scan_folder(root: Path, format: str) -> Scan:
    files = Files(root)
    annotation_files = find_annotation_files(files) if format in ("auto", "coco") else []
    descriptions = find_descriptions(files) if format in ("auto", "yolo") else []
    if format == "auto" and annotation_files and descriptions:
        raise ImportFailed(
            f"“{root}” has a COCO JSON ({annotation_files[0]}) and a YOLO description ({descriptions[0]}). "
            "Choose one with --format coco or --format yolo."
        )
    if len(descriptions) > 1:
        raise ImportFailed(
            f"“{root}” has several descriptions ({', '.join(descriptions)}). Give the path of one of them."
        )
    if annotation_files:
        return scan_coco(root, annotation_files)
    if format == "coco":
        raise ImportFailed(
            f"There is no COCO JSON in “{root}” or the folders directly below. Give the path of the JSON."
        )
    if descriptions or format == "yolo":
        return scan_yolo(root, descriptions[0] if descriptions else None)
    return scan_folder(root)
