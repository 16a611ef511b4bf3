"""What a backup is refused with."""

from vlm.errors import Refusal


class BackupFailed(Refusal):
    """A backup cannot be made or put back; the message says why, and nothing has changed."""

    title = "No backup"
