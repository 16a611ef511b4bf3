"""From where the page may import: below the import roots, and below the URLs that the settings name.

A URL has the server ask a store with the server's own credentials, so nobody names a bucket here that the settings do not.
"""

from pathlib import Path

from django.conf import settings

from vlm.errors import RootRefused
from vlm.formats import ImportFailed
from vlm.roots import LocalRoot, ObjectRoot, ObjectURL, Root, is_url


def allowed_place(path: str) -> Path | ObjectURL:
    """Return the folder, file or URL that ``path`` names, if it lies below the import roots or URLs.

    Raises:
        ImportFailed: it does not, cannot be looked at, or there are none.
    """
    return below_urls(path) if is_url(path) else allowed_folder(path)


def allowed_folder(path: str) -> Path:
    """Return the folder or file that ``path`` names, if it lies below the import roots.

    Raises:
        ImportFailed: it does not, cannot be looked at, or there are no import roots.
    """
    folder = below_roots(path)
    try:
        folder.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # whoever reads it says so
    except OSError as error:
        raise ImportFailed(f"{folder} cannot be looked at: {error.strerror}. {_choose()}") from error
    return folder


def allowed_root(path: str) -> Root:
    """Return the root that ``path`` names; see :func:`allowed_place`."""
    place = allowed_place(path)
    return ObjectRoot(place) if isinstance(place, ObjectURL) else LocalRoot(place)


def allowed_places() -> list[Path | ObjectURL]:
    """Return what no root of the page may lie above."""
    return [*settings.IMPORT_ROOTS, *import_urls()]


def import_urls() -> list[ObjectURL]:
    """Return the URLs below which the page imports."""
    return [ObjectURL.parse(url) for url in settings.IMPORT_URLS]


def below_urls(path: str) -> ObjectURL:
    """Return the URL that ``path`` is, if it lies below those of the settings.

    Raises:
        ImportFailed: it does not, or there are none. The same is said of a bucket that is there and of one that is not.
    """
    urls = import_urls()
    if not urls:
        raise ImportFailed(
            "Importing from URLs is off on the page. Set DATAVISOR_IMPORT_URLS to those below which it may import, or use "
            "“import_dataset” on the machine itself."
        )
    allowed = f"Choose one below {' or '.join(map(str, urls))}."
    try:
        url = ObjectURL.parse(path)
    except RootRefused as refused:
        raise ImportFailed(f"{refused} {allowed}") from None
    if not any(map(url.is_below, urls)):
        raise ImportFailed(f"{url} is not below the import URLs. {allowed}")
    return url


def below_roots(path: str) -> Path:
    """Return what ``path`` names below the import roots, whether anything is there or not.

    Raises:
        ImportFailed: it does not, or there are no import roots.
    """
    roots: list[Path] = settings.IMPORT_ROOTS
    if not roots and (urls := import_urls()):
        raise ImportFailed(f"No folder may be imported from the page. Name a URL below {' or '.join(map(str, urls))}.")
    if not roots:
        raise ImportFailed(
            "Importing from the page is off. Set DATAVISOR_IMPORT_ROOTS to the folders it may import from."
        )
    allowed = _choose()
    if not path.strip():
        raise ImportFailed(f"Name a folder. {allowed}")
    try:
        folder = Path(path.strip()).expanduser()
        if not folder.is_absolute():
            folder = roots[0] / folder
        folder = folder.resolve()
    except (OSError, RuntimeError, ValueError):
        raise ImportFailed(f"“{path}” is not a path. {allowed}") from None
    # Asked before anything is looked up, so that the answer tells nothing about other folders.
    if not any(folder.is_relative_to(root) for root in roots):
        raise ImportFailed(f"{folder} is not below the import roots. {allowed}")
    return folder


def _choose() -> str:
    return f"Choose a folder below {' or '.join(map(str, settings.IMPORT_ROOTS))}."
