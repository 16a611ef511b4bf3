"""All formats. A new one is a module with its ``FORMAT``, and a line here.

The choices of models, forms and commands, the README's tables and the page's menus derive from these two.
"""

from vlm.formats import coco, folder, yolo
from vlm.formats.base import ExportFormat, ImportFormat
from vlm.formats.export import coco as coco_export
from vlm.formats.export import fiftyone, pictures, rows, xmp
from vlm.formats.export import yolo as yolo_export

IMPORTS: dict[str, ImportFormat] = {
    format.name: format
    for format in (
        folder.FORMAT,
        coco.FORMAT,
        yolo.FORMAT,
    )
}
EXPORTS: dict[str, ExportFormat] = {
    format.name: format
    for format in (
        rows.CSV,
        rows.SPREADSHEET,
        rows.JSONL,
        rows.PARQUET,
        coco_export.FORMAT,
        coco_export.STORED_FORMAT,
        yolo_export.FORMAT,
        fiftyone.FORMAT,
        pictures.PICTURES,
        pictures.FILES,
        xmp.FORMAT,
    )
}
AUTO = "auto"  # find out


def import_choices() -> list[tuple[str, str]]:
    """Return the formats of data sets with their labels, as Django's choices."""
    return [(format.name, format.label) for format in IMPORTS.values()]


def asked_choices() -> list[tuple[str, str]]:
    """Return what an import may be told: a format, or to find out."""
    return [(AUTO, "find out"), *import_choices()]


def layouts_table() -> str:
    """Return the README's table of the formats that are read."""
    return _table(("format", "layout"), [(f"`{format.name}`", format.layout) for format in IMPORTS.values()])


def exports_table() -> str:
    """Return the README's table of the formats that are written."""
    return _table(("format", "what it is"), [(f"`{format.name}`", format.meaning) for format in EXPORTS.values()])


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    return "".join(f"| {first} | {second} |\n" for first, second in (head, ("---", "---"), *rows))
