"""The backend: Django's own, but for how a transaction begins, and for what becomes of a connection that was lost."""

import select
from types import TracebackType
from typing import Any

from django.conf import settings
from django.db import DatabaseError, OperationalError
from django.db.backends.postgresql import base
from django.db.utils import DatabaseErrorWrapper
from django.utils.functional import cached_property
from psycopg.errors import UndefinedColumn, UndefinedTable

from datavisor.private import own_data_dir

# A server, or a way to it, that is gone without a word is noticed after about this many seconds, and not after hours.
CONNECTION = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds, of what was sent and not acknowledged
}
TURN = 0x64617461  # “data”; the number of the lock that transactions of one database take turns by
# For this transaction alone, so that it also holds behind a pooler: how long to wait for others, and how long one may stand
# still, in a process that was halted perhaps, while others wait for it.
BEGIN = """
select set_config('lock_timeout', '30s', true), set_config('idle_in_transaction_session_timeout', '5min', true),
    pg_advisory_xact_lock(%s)
"""


class Errors(DatabaseErrorWrapper):
    """Tells of a table or column that is not there as SQLite does: it is no mistake of the query, the database is not migrated."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, (UndefinedTable, UndefinedColumn)):
            raise OperationalError(*error.args) from error
        super().__exit__(kind, error, trace)


class DatabaseWrapper(base.DatabaseWrapper):
    """What is written in a transaction is decided by what was read in it, so transactions take turns, as on SQLite.

    PostgreSQL lets two of them read at once what each is about to change: a run could start while the vocabulary that it
    asks is being edited. Statements outside a transaction need no turn; a row is claimed by one conditional update.
    """

    @cached_property
    def wrap_database_errors(self) -> Errors:
        return Errors(self)

    def get_connection_params(self) -> dict[str, Any]:
        return CONNECTION | super().get_connection_params()

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        own_data_dir(settings.DATA_DIR)  # which is made with the database, here as with SQLite: samples will lie in it
        return super().get_new_connection(conn_params)

    def ensure_connection(self) -> None:
        """Connect, anew where the connection was lost since it was last used: a thread may have had it for days."""
        if self.connection is not None and not self.in_atomic_block and self._is_lost():
            self.close()
        super().ensure_connection()

    def _is_lost(self) -> bool:
        """Whether the server has gone away. A server that has nothing to say is not asked: that would cost a round trip."""
        if self.connection.closed:
            return True
        heard = select.poll()
        heard.register(self.connection.fileno(), select.POLLIN)
        return bool(heard.poll(0)) and not self.is_usable()

    def _set_autocommit(self, autocommit: bool) -> None:
        super()._set_autocommit(autocommit)  # type: ignore[misc]  # the stubs do not know it
        if autocommit:
            return
        try:
            with self.wrap_database_errors:
                self.connection.execute(BEGIN, [TURN])
        except DatabaseError:
            self.close()  # else the next statement would find itself in this transaction
            raise
