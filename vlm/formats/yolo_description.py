"""What describes a YOLO data set: a `data.yaml`, Darknet's `obj.data`, or nothing but its folders."""

import posixpath
import re
from dataclasses import dataclass
from typing import Any

from vlm.formats.files import Files, Refused
from vlm.formats.matching import readings
from vlm.formats.plain_yaml import MAX_BYTES, YAMLBroken, is_null, load
from vlm.formats.records import LONGEST_CATEGORY, ImportFailed, printable

_SPLIT_KEYS = ("train", "val", "valid", "validation", "test")
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Description:
    """What a ``data.yaml`` or ``obj.data`` says."""

    path: str
    base: str
    names: dict[int, str]
    sources: tuple[tuple[str, str], ...]  # split, and a folder or list of images as written
    key_point_values: int  # numbers per object behind the box, 0 where objects have no key points


def load_yaml(files: Files, path: str) -> Any:
    """Return what a YAML file says. Raises ``Refused`` where it is not to be read, ``YAMLBroken`` where it is no YAML."""
    return load(files.read_text(path, max_bytes=MAX_BYTES))


def load_data(files: Files, path: str) -> dict[str, Any]:
    """Return what a Darknet ``.data`` file says: a line is ``key = value``."""
    lines = files.read_text(path, max_bytes=MAX_BYTES).splitlines()
    pairs = [line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith("#")]
    return {key.strip(): value.strip() for key, value in pairs}


def full_stop(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def describes_yolo(content: dict[Any, Any]) -> bool:
    """Tell whether a YAML names splits and classes."""
    splits = any(not is_null(content.get(key)) for key in _SPLIT_KEYS)
    return splits and ("names" in content or "nc" in content)


def describe(files: Files, path: str) -> Description:
    """Read a description. Raises ``ImportFailed`` where it cannot be used, with what to do."""
    try:
        content = load_data(files, path) if path.endswith(".data") else load_yaml(files, path)
    except Refused as refused:
        raise ImportFailed(f"“{path}” cannot be read: {refused}") from refused
    except YAMLBroken as broken:
        raise ImportFailed(
            f"“{path}” is no valid YAML at {full_stop(str(broken))} Repair the file, or export it anew."
        ) from broken
    if not isinstance(content, dict):
        raise ImportFailed(f"“{path}” is no description of a YOLO data set: “train”, “val” and “names” are expected.")
    folder = posixpath.dirname(path)
    sources: list[tuple[str, str]] = []
    for key in _SPLIT_KEYS:
        value = content.get(key)
        entries = value if isinstance(value, list) else [value]
        sources.extend(
            (key, entry.replace("\\", "/")) for entry in entries if isinstance(entry, str) and not is_null(entry)
        )
    return Description(
        path,
        _base(files, folder, content.get("path")),
        _names(files, path, content.get("names")),
        tuple(sources),
        _key_point_values(content.get("kpt_shape")),
    )


def without_description(files: Files) -> Description:
    """Describe a folder that has only images and labels; a list of classes names them where it exists."""
    lists = ["classes.txt", "labels/classes.txt", *files.listing("", (".names",))[1]]
    names: dict[int, str] = {}
    for path in lists:
        try:
            names = _names_in(files.read_text(path, max_bytes=MAX_BYTES))
        except Refused:
            continue
        break
    return Description("", "", names, (("", "images" if files.is_folder("images") else "."),), 0)


def _base(files: Files, folder: str, path: Any) -> str:
    """Return the folder that splits are relative to: “path” where it exists here, else the description's own."""
    if isinstance(path, str) and path:
        try:
            base = files.relative(folder, path.replace("\\", "/"))
        except Refused:
            return folder
        if files.is_folder(base):
            return base
    return folder


def _names(files: Files, path: str, value: Any) -> dict[int, str]:
    """Return the names of the classes: of a list, of a mapping, or of the file that is named instead.

    Raises:
        ImportFailed: it is something else.
    """
    if isinstance(value, str) and not is_null(value):
        value = _names_elsewhere(files, path, value)
    if value is None or is_null(value):
        return {}
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    names = {}
    for key, name in pairs or ():
        if (
            isinstance(name, str)
            and 0 < len(name.strip()) <= LONGEST_CATEGORY
            and str(key).strip().isdecimal()
            and len(str(key)) < 10
        ):
            names[int(key)] = printable(name.strip())
    if value and not names:
        raise ImportFailed(f"The “names” of “{path}” are no list of classes, and no mapping of numbers to classes.")
    return names


def _names_elsewhere(files: Files, path: str, text: str) -> Any:
    """Return the names behind a text: a list that was quoted, or a file with a name in each line."""
    if text.lstrip().startswith(("[", "{")):
        try:
            return load(text)
        except YAMLBroken:
            return text
    for parts in readings(text):
        for place in range(len(parts)):
            for folder in dict.fromkeys([posixpath.dirname(path), ""]):
                try:
                    listed = files.read_text(posixpath.join(folder, *parts[place:]), max_bytes=MAX_BYTES)
                except Refused:
                    continue
                return {str(index): name for index, name in _names_in(listed).items()}
    if path.endswith(".data"):
        return {}  # classes have numbers then
    return text


def _names_in(text: str) -> dict[int, str]:
    """Return the names in the lines of a list; a blank line, or one that is too long, is a class without a name."""
    names = ((index, printable(line.strip())) for index, line in enumerate(lines_of(text)))
    return {index: name for index, name in names if 0 < len(name) <= LONGEST_CATEGORY}


def lines_of(text: str) -> list[str]:
    """Return the lines of a list; a name may hold what Unicode, too, calls a line's end."""
    return _LINE_END.split(text)


def _key_point_values(shape: Any) -> int:
    if isinstance(shape, list) and len(shape) == 2 and all(str(number).isdecimal() for number in shape):
        points, values = (int(str(number)[:6]) for number in shape)
        return points * values
    return 0
