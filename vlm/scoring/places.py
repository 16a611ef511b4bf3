"""Where a run works: here, or on workers, and on which."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Self

from vlm.errors import Refusal

_WRITTEN = re.compile(
    r"(?P<here>here)?|(?P<local>local)(:(?P<count>[1-9]\d{0,3}))?|(?P<auto>auto)|(?P<ray>ray://[^\s/?#@]+:\d{1,5})"
)
FORMS = "here, local, local:4, auto or ray://HOST:PORT"


class WorkersUnknown(Refusal):
    """A text names no workers."""

    title = "There are no such workers"


@dataclass(frozen=True, slots=True)
class Workers:
    """Workers, as somebody asks for them.

    Attributes:
        kind: ``here`` for the model of this process; ``local`` for processes of this machine; ``auto`` for the cluster that this
            machine is a node of (or that ``RAY_ADDRESS`` names); ``ray`` for one that is reached as a client.
        count: of local ones; 0 for one per GPU, or one on a machine without.
        address: of the cluster that is reached as a client.
    """

    kind: Literal["here", "local", "auto", "ray"] = "here"
    count: int = 0
    address: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``here``, ``local``, ``local:N``, ``auto`` or ``ray://HOST:PORT``; an empty text is ``here``.

        Raises:
            WorkersUnknown: it is none of them.
        """
        found = _WRITTEN.fullmatch(text.strip())
        if found is None:
            raise WorkersUnknown(f"“{text[:80]}” names no workers: write {FORMS}.")
        if found["local"]:
            return cls("local", int(found["count"] or 0))
        if found["auto"]:
            return cls("auto")
        return cls("ray", address=found["ray"]) if found["ray"] else cls()

    def __str__(self) -> str:
        if self.kind == "local" and self.count:
            return f"local:{self.count}"
        return self.address or ("" if self.kind == "here" else self.kind)
