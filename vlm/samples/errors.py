"""What can go wrong with the sample store; every message says what to do about it."""

from vlm.errors import Refusal


class StoreError(Refusal):
    """The store cannot do what was asked."""

    title = "The samples cannot be read"
    status = 503


class StoreBusy(StoreError):
    """Another process holds the store and did not hand it over in time. Trying again helps."""

    title = "The samples are busy"
    retry_after = 5


class StoreHeld(StoreBusy):
    """A program that never hands it over has the store open: only closing that program helps."""


class StoreReadOnly(StoreError):
    """The store's folder or disk takes no writes."""


class StoreFull(StoreError):
    """The disk is full. What was committed before is safe."""

    title = "Nothing can be written"
    status = 507


class StoreCorrupt(StoreError):
    """The file is damaged, no DuckDB file at all, or of a newer version."""


class StoreForeign(StoreError):
    """The store belongs to another database: one of the two was replaced or restored."""

    title = "Samples and database do not belong together"


class StoreClaimLost(StoreError):
    """A run's worker may no longer commit for it: the run was reverted, or another worker goes on with it."""

    title = "This run is another's"
    status = 409


class FilterError(Refusal):
    """A filter or a page cursor that means nothing; the message says which part."""

    title = "That filter cannot be read"


class TagError(Refusal):
    """A tag that cannot be stored."""


class EditError(Refusal):
    """An edit that cannot be taken back; the message says why."""

    title = "This stays as it is"
    status = 409
