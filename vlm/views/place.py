"""Where the user is in a data set. The address holds all of it, so reloading, going back and sharing work."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Self
from urllib.parse import urlencode

from django.http import QueryDict
from django.urls import reverse
from pydantic import Field

from vlm.samples import ORDERS, SampleFilter, is_order
from vlm.samples.filters import PAGE_KEYS
from vlm.views.problems import Problem

# size -> what it is called, and the long side of its thumbnails in pixels
LIMIT = 1000  # images that a program gets at once
PAGING = {"order": str, "after": str, "limit": Annotated[int, Field(ge=1, le=LIMIT)]}
SIZES = {"s": ("Small", 160), "m": ("Medium", 320), "l": ("Large", 640)}
SHAPES = {"crop": "Cropped", "whole": "Whole"}  # of the thumbnails
VIEWS = {"grid": "Pictures", "table": "Table"}


@dataclass(frozen=True, slots=True)
class Place:
    filter: SampleFilter = field(default_factory=SampleFilter)
    order: str = "name"
    size: str = "m"
    shape: str = "crop"
    view: str = "grid"

    @classmethod
    def of(cls, query: QueryDict) -> Self:
        """Read an address.

        Raises:
            FilterError: a part of the filter cannot be read.
            Problem: the order, the size, the shape or the view is not one of ours.
        """
        order, size, shape = query.get("order", "name"), query.get("size", "m"), query.get("shape", "crop")
        view = query.get("view", "grid")
        if not is_order(order):
            raise Problem(f"There is no order “{order[:100]}”. There are: {', '.join(ORDERS)}.")
        if size not in SIZES:
            raise Problem(f"There is no size “{size}”. There are: {', '.join(SIZES)}.")
        if shape not in SHAPES:
            raise Problem(f"There is no shape “{shape}”. There are: {', '.join(SHAPES)}.")
        if view not in VIEWS:
            raise Problem(f"There is no view “{view}”. There are: {', '.join(VIEWS)}.")
        parts = {key: values for key, values in query.lists() if key not in PAGE_KEYS}
        return cls(SampleFilter.from_query(parts), order, size, shape, view)

    @property
    def pixels(self) -> int:
        return SIZES["s" if self.view == "table" else self.size][1]

    @property
    def query(self) -> str:
        own = {"order": self.order, "size": self.size, "shape": self.shape, "view": self.view}
        plain = {"order": "name", "size": "m", "shape": "crop", "view": "grid"}
        rest = urlencode({key: value for key, value in own.items() if value != plain[key]})
        return "&".join(filter(None, (self.filter.to_query(), rest)))

    def filtered(self, **changes: Any) -> Self:
        return replace(self, filter=replace(self.filter, **changes))

    def url(self, dataset_id: int, name: str = "dataset", **parameters: str) -> str:
        query = "&".join(filter(None, (self.query, urlencode(parameters))))
        return reverse(name, args=[dataset_id]) + (f"?{query}" if query else "")


def limit_of(query: QueryDict) -> int:
    """Return how many images a program asks for. Raises ``Problem``."""
    asked = query.get("limit", "60")
    if not (asked.isascii() and asked.isdecimal() and 1 <= int(asked[:9]) <= LIMIT):
        raise Problem(f"limit is how many images to give: 1 to {LIMIT:,}.")
    return int(asked)
