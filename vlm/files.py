"""From a sample to its file, which must lie in the data set's folder whatever links have been laid since the import."""

from pathlib import Path

from vlm.imaging import ImageUnreadable


def locate(root: Path, path: str) -> Path:
    """Return the file of a sample.

    Raises:
        ImageUnreadable: it is gone, or leads out of ``root``.
    """
    try:
        base = root.resolve(strict=True)
        found = (base / path).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        raise ImageUnreadable(f"The file {path} is not there (any more).") from None
    if not found.is_relative_to(base):
        raise ImageUnreadable(f"{path} leads out of the data set's folder, so it is not read.")
    return found
