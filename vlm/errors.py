"""The one family of expected errors. It imports nothing of ours, so that every room can raise of it.

Each door says what a refusal means in its own language, in one place: ``vlm.middleware`` for pages, htmx and JSON,
``DoorCommand`` for commands, ``TellsRefusals`` for the admin, ``vlm.live`` for the websocket. None of them is ever a 500 or a
trace.
"""

import errno

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's share of it, the limit of a file
NO_WRITES = (*FULL, errno.EROFS)
# What PostgreSQL's client says of a server that is away, and the server itself as it comes and goes.
GONE = (
    "connection failed",
    "connection to server",
    "connection is closed",
    "connection timeout",
    "connection unexpectedly",
    "SSL connection has been closed",
    "could not receive data",
    "could not send data",
    "terminating connection",
    "the connection is lost",
    "the database system is",
)


class Refusal(Exception):
    """What was asked cannot be done, for a reason that was foreseen. The message is for the user: it says what to do.

    Attributes:
        title: heads the page that tells it.
        status: of the HTTP answer.
        exit_code: of a command.
        retry_after: seconds after which trying again may help; 0 where only a change does.
        target: the place of the page where htmx shows it (a CSS selector), instead of the messages at the top.
    """

    title = "This did not work"
    status = 400
    exit_code = 2
    retry_after = 0
    target = ""

    @property
    def message(self) -> str:
        return str(self)


class DatabaseUnusable(Refusal):
    """Django's database is locked for long, full, away, or not of this version."""

    title = "The database cannot be used"
    status = 503
    retry_after = 5

    @classmethod
    def of(cls, error: Exception) -> "DatabaseUnusable":
        """Return ``error`` of the database as a refusal; of a full disk another, which waiting does not mend."""
        said = " ".join(str(error).split())  # PostgreSQL writes several lines
        if any(sign in said for sign in ("is full", "No space left")):
            return DatabaseFull(
                f"The database takes no writes: {said}. Nothing of this step was kept there. Make room, and try again."
            )
        if any(sign in said for sign in GONE):
            return cls(f"The database does not answer: {said}. Try again once its server runs.")
        return cls(
            f"The database cannot be used: {said}. If it is new, or of an older version, run “migrate” first; if its disk is "
            "full, make room."
        )


class DatabaseFull(DatabaseUnusable):
    """The disk of Django's database is full. It can be read, and what was committed before is safe."""

    title = "Nothing can be written"
    status = 507
    retry_after = 0


class Unstorable(Refusal):
    """What was sent does not fit Django's database: a text with a NUL in it, or one longer than its place."""

    title = "That cannot be kept"

    @classmethod
    def of(cls, error: Exception) -> "Unstorable":
        return cls(f"What was sent does not fit the database: {' '.join(str(error).split())}. Write it otherwise.")


class Unwritable(Refusal):
    """A file or folder takes no writes: its disk is full or read-only."""

    title = "Nothing can be written"
    status = 507

    @classmethod
    def of(cls, error: BaseException) -> "Unwritable | None":
        """Return ``error`` of the operating system as a refusal; ``None`` for one that says something else."""
        if not isinstance(error, OSError) or error.errno not in NO_WRITES:
            return None
        where = error.filename if isinstance(error.filename, str) else "The disk"
        return cls(f"{where} takes no writes: {error.strerror}. Make room, and try again.")


class RootRefused(Refusal):
    """Images are not read from where somebody says that they lie."""

    title = "Images are not read from there"


class RootAway(Refusal):
    """The place where images lie does not answer for now. No image is to blame; trying again later may help."""

    title = "The images cannot be reached"
    status = 503
    retry_after = 30
