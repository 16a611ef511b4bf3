"""The one family of expected errors. It imports nothing, so that every room can raise of it.

Each door says what a refusal means in its own language, in one place: ``vlm.middleware`` for pages, htmx and JSON,
``DoorCommand`` for commands, ``TellsRefusals`` for the admin, ``vlm.live`` for the websocket. None of them is ever a 500 or a
trace.
"""


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
    """Django's database is locked for long, full, or not of this version."""

    title = "The database cannot be used"
    status = 503
    retry_after = 5

    @classmethod
    def of(cls, error: Exception) -> "DatabaseUnusable":
        """Return ``error`` of the database as a refusal."""
        return cls(
            f"The database cannot be used: {error}. If it is new, or of an older version, run “migrate” first; if its disk is "
            "full, make room."
        )


class Unwritable(Refusal):
    """A folder of DataVisor's own takes no writes: its disk is full, or the rights are missing."""

    title = "Nothing can be written"
    status = 503
