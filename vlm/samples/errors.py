"""What can go wrong with the sample store; every message says what to do about it."""


class StoreError(Exception):
    """The store cannot do what was asked."""


class StoreBusy(StoreError):
    """Another process holds the store and did not hand it over in time. Trying again helps."""


class StoreHeld(StoreBusy):
    """A program that never hands it over has the store open: only closing that program helps."""


class StoreReadOnly(StoreError):
    """The store's folder or disk takes no writes."""


class StoreFull(StoreError):
    """The disk is full. What was committed before is safe."""


class StoreCorrupt(StoreError):
    """The file is damaged, no DuckDB file at all, or of a newer version."""


class StoreClaimLost(StoreError):
    """A run's worker may no longer commit for it: the run was reverted, or another worker goes on with it."""


class FilterError(ValueError):
    """A filter or a page cursor that means nothing; the message says which part."""


class TagError(ValueError):
    """A tag that cannot be stored."""


class EditError(ValueError):
    """An edit that cannot be taken back; the message says why."""
