"""The orders in which samples can be listed, as the address spells them; ``ordering`` makes SQL of them.

An order is called after what it sorts by, some with a name behind a colon: ``taken``, ``tag:weather``, ``column:error``. A
minus in front turns it round. Samples without a value come last either way.
"""

from .conditions import MEASURES

ORDERS = {"name": "File name", "added": "Import order", "uncertain": "Least certain first"}
FILE_ORDERS = {
    "-filesize": "Largest files first",
    "filesize": "Smallest files first",
    "-megapixels": "Most pixels first",
    "megapixels": "Fewest pixels first",
}
TIME_ORDERS = {"taken": "Taken first", "-taken": "Taken last"}
MEASURE_ORDERS = {
    "measure:luminance": "Darkest first",
    "-measure:luminance": "Brightest first",
    "measure:contrast": "Least contrast first",
    "-measure:contrast": "Most contrast first",
    "measure:sharpness": "Most blurred first",
    "-measure:sharpness": "Sharpest first",
    "-measure:noise": "Noisiest first",
    "measure:noise": "Least noisy first",
    "-measure:colourfulness": "Most colourful first",
    "measure:colourfulness": "Least colourful first",
    "measure:aspect": "Tallest first",
    "-measure:aspect": "Widest first",
}
CONTRADICTING = "contradicting"
MARK_ORDERS = {CONTRADICTING: "Most contradicting first"}
PLAIN = {  # what an order sorts by
    "name": "file name",
    "added": "import order",
    "uncertain": "certainty",
    "split": "split",
    "own": "own tags",
    "width": "width",
    "height": "height",
    "megapixels": "pixels",
    "filesize": "file size",
    "taken": "time taken",
    "camera": "camera",
}
NAMED = ("tag", "probability", "measure", "column")  # with the name of a dimension, a measure, a column
STEADY = frozenset({"name", "added", "split"})  # that no run changes


def parts_of(order: str) -> tuple[bool, str, str]:
    """Return whether an order is turned round, what it sorts by, and the name behind the colon."""
    kind, _, name = order.removeprefix("-").partition(":")
    return order.startswith("-"), kind, name


def is_order(order: str) -> bool:
    """Return whether an order is spelt as one; a dimension or column that it names may not be there."""
    _, kind, name = parts_of(order)
    if kind == "measure":
        return name in MEASURES
    return order == CONTRADICTING or (kind in NAMED and name != "") or (kind in PLAIN and ":" not in order)


def is_steady(order: str) -> bool:
    """Return whether samples stay where they are in an order while a run tags them."""
    return parts_of(order)[1] in STEADY


def turned(order: str) -> str:
    """Return the order the other way round."""
    return order.removeprefix("-") if order.startswith("-") else f"-{order}"


def said_order(order: str) -> str:
    """Return an order as people read it, such as “weather, falling”."""
    falling, kind, name = parts_of(order)
    what = (
        MEASURES.get(name, name) if kind == "measure" else f"probability of {name}" if kind == "probability" else name
    )
    return f"By {what or PLAIN.get(kind, kind)}{', falling' if falling else ''}"
