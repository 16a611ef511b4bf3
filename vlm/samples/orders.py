"""The orders in which samples can be listed, as the address spells them; ``reading`` makes SQL of them."""

from .filters import MEASURES

ORDERS = {"name": "File name", "added": "Import order", "uncertain": "Least certain first"}
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


def is_order(order: str) -> bool:
    """Return whether an order is spelt as one; a column that it names may not be there."""
    kind, _, name = order.removeprefix("-").partition(":")
    return (
        order in (*ORDERS, *MARK_ORDERS)
        or (kind == "column" and name != "")
        or (kind == "measure" and name in MEASURES)
    )
