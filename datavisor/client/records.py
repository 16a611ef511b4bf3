"""What the client gives back of images, and how a filter is written into an address."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import parse_qs, urlencode

Part = str | int | float | Iterable[str | int]


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag: whose word it is (``user`` or ``model``), of which dimension, and how probable the model found it.

    ``shared_from`` is the image of the same group about which the model was asked instead, if it was.
    """

    tag: str
    dimension: str | None
    source: Literal["user", "model"]
    probability: float | None
    run: int | None
    shared_from: int | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a data set; ``path`` is relative to the data set's folder.

    ``bytes`` is the file's size; ``taken`` (by the camera's clock) and ``camera`` are what the file says, if it does.
    """

    id: int
    path: str
    file_name: str
    split: str
    width: int | None
    height: int | None
    missing: bool
    tags: tuple[Tag, ...]
    bytes: int | None = None
    taken: datetime | None = None
    camera: str = ""

    @property
    def words(self) -> dict[str, str]:
        """Dimension → the image's word of it."""
        return {tag.dimension: tag.tag for tag in reversed(self.tags) if tag.dimension}

    @property
    def own_tags(self) -> tuple[str, ...]:
        """Tags that are no word of the vocabulary."""
        return tuple(tag.tag for tag in self.tags if not tag.dimension)


def image_of(one: Mapping[str, Any]) -> Image:
    tags = tuple(
        Tag(tag["tag"], tag["dimension"], tag["source"], tag["probability"], tag["run"], tag.get("shared_from"))
        for tag in one["tags"]
    )
    return Image(
        id=one["id"],
        path=one["path"],
        file_name=one["file_name"],
        split=one["split"],
        width=one["width"],
        height=one["height"],
        missing=one["missing"],
        tags=tags,
        bytes=one["bytes"],
        taken=datetime.fromisoformat(one["taken"]) if one["taken"] else None,
        camera=one["camera"] or "",
    )


def row_of(image: Image, dimensions: Iterable[str]) -> dict[str, Any]:
    """Return an image as one row of a table."""
    row: dict[str, Any] = {"id": image.id, "path": image.path, "split": image.split}
    row |= {"width": image.width, "height": image.height}
    chance = {tag.dimension: tag.probability for tag in reversed(image.tags)}
    for name in dimensions:
        row |= {name: image.words.get(name), f"{name}_probability": chance.get(name)}
    return row | {"own_tags": list(image.own_tags)}


def query_of(filter: str, parts: Mapping[str, Part], **more: Any) -> str:
    given: dict[str, Any] = {**parse_qs(filter.lstrip("?"), keep_blank_values=True)}
    for key, value in parts.items():
        given[key] = value if isinstance(value, str | int | float) else list(value)
    return urlencode(given | more, doseq=True)
