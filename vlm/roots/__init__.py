"""Where the images of a data set lie: below a folder of this machine, or below a prefix of a bucket.

One ``Root`` per place, and one rule for all of them: nothing outside of it is read. ``local`` follows links and looks where
they end; ``objects`` takes keys as they are. Nothing here knows Django, and credentials and endpoints are known to nobody:
they stay in the environment of the process that reads.
"""

from vlm.roots.base import MOST_BYTES, Root
from vlm.roots.local import LocalRoot
from vlm.roots.objects import ObjectRoot
from vlm.roots.urls import ObjectURL, is_url
from vlm.roots.waiting import GivenUp, Patience

__all__ = ["MOST_BYTES", "GivenUp", "LocalRoot", "ObjectRoot", "ObjectURL", "Patience", "Root", "is_url", "root_of"]


def root_of(text: str) -> Root:
    """Return the root that a path or URL names, as data sets keep it.

    Raises:
        RootRefused: it is a URL that nothing is read from; the message says why.
    """
    return ObjectRoot(ObjectURL.parse(text)) if is_url(text) else LocalRoot(text)
