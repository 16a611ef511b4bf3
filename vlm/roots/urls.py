"""URLs of buckets: what they may look like, when two are the same, and which lies below which."""

import re
from dataclasses import dataclass
from typing import Self

from vlm.errors import RootRefused

SCHEMES = {"s3": "s3://BUCKET/PREFIX", "gs": "gs://BUCKET/PREFIX", "az": "az://CONTAINER/PREFIX"}
LONGEST = 4096  # characters
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_FORMS = "a folder, or one of " + ", ".join(SCHEMES.values())


def is_url(text: str) -> bool:
    """Tell whether a text is meant as a URL rather than as a path."""
    return _URL.match(text.strip()) is not None


@dataclass(frozen=True, slots=True)
class ObjectURL:
    """A prefix of a bucket, in the one way to write it: names of buckets have no capitals, and a prefix no slash at its end.

    A URL holds no credentials, no endpoint and no options: all of that is the environment's. ``%`` is a letter like any other;
    keys are taken as they are.
    """

    scheme: str
    bucket: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the URL that ``text`` is.

        Raises:
            RootRefused: it is none of a bucket. What might be a secret is not repeated.
        """
        match = _URL.fullmatch(text.strip())
        if match is None:
            raise RootRefused(f"This is no URL of images. Give {_FORMS}.")
        scheme, rest = match[1].lower(), match[2]
        if scheme not in SCHEMES:
            raise RootRefused(f"Images are not read from “{scheme}://”. Give {_FORMS}.")
        bucket, _, prefix = rest.partition("/")
        if "@" in bucket or ":" in bucket:
            raise RootRefused(
                f"A URL of images names no account, password or port. Give {SCHEMES[scheme]}; credentials and endpoint are taken "
                "from the environment."
            )
        if "?" in rest:
            raise RootRefused(
                f"A URL of images has no “?”: signatures and options are taken from the environment. Give {SCHEMES[scheme]}."
            )
        bucket = bucket.lower()
        if not _BUCKET.fullmatch(bucket):
            raise RootRefused(f"“{bucket[:100]}” is no name of a bucket. Give {SCHEMES[scheme]}.")
        prefix = prefix.removesuffix("/")
        if prefix and not is_key(prefix):
            raise RootRefused(
                "The prefix of a URL has no empty part (//), no “.” or “..” between its slashes and no control character. "
                f"Give {SCHEMES[scheme]}."
            )
        if len(rest) > LONGEST - 10:
            raise RootRefused(f"A URL of images has {LONGEST:,} characters at most.")
        return cls(scheme, bucket, prefix)

    def __str__(self) -> str:
        return f"{self.scheme}://{'/'.join(self.parts)}"

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.bucket, *self.prefix.split("/")) if self.prefix else (self.bucket,)

    @property
    def parent(self) -> "ObjectURL":
        """The URL one part shorter; a bucket's own is itself."""
        return ObjectURL(self.scheme, self.bucket, self.prefix.rpartition("/")[0])

    @property
    def name(self) -> str:
        return self.parts[-1]

    def is_below(self, other: "ObjectURL") -> bool:
        """Tell whether this is ``other`` or lies below it, by whole parts: ``photos-old`` does not lie below ``photos``."""
        return self.scheme == other.scheme and self.parts[: len(other.parts)] == other.parts


def is_key(path: str) -> bool:
    """Tell whether a path can be the key of an object below a root, and leads nowhere else."""
    return not _CONTROL.search(path) and not any(part in ("", ".", "..") for part in path.split("/"))
