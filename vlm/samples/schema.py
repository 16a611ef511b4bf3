"""The tables, and the way from one version of them to the next.

No foreign keys (DuckDB then refuses updates of ``samples.tags``) and no index but the primary keys (each is rewritten at
every update of a row). The last columns of ``samples`` are derived from the ledger and the answers by ``merging.derive``.
"""

import shutil
from pathlib import Path

import duckdb

from .errors import StoreCorrupt

MIGRATIONS = [
    """
    create sequence sample_ids;
    create sequence edits;       -- order of users' tags
    create sequence changes;     -- order in which runs finish samples

    create table revision (number bigint not null);  -- grows with every transaction that writes
    insert into revision values (0);

    create table samples (
        id bigint primary key,
        dataset_id bigint not null,
        path varchar not null,           -- below the data set's root, with slashes: the identity on importing again
        file_name varchar not null,
        split varchar not null,
        width integer,
        height integer,
        content_key varchar not null,    -- size and time of change
        external_id varchar not null,    -- the image's id in the JSON it came from
        categories varchar[] not null,
        missing boolean not null,        -- the file was gone when the folder was last imported
        tags varchar[] not null,         -- users' tags as they were given, then the model's
        user_count integer not null,     -- how many of them are users'
        certainty double,                -- the lowest probability of a best word
        discarded integer not null,      -- dimensions whose answer was not accepted
        failed boolean not null          -- the last run could not read the image
    );
    create table annotations (
        dataset_id bigint not null, sample_id bigint not null, category varchar not null,
        x double, y double, width double, height double
    );
    create table sample_tags (           -- the ledger: who says so
        dataset_id bigint not null, sample_id bigint not null, tag varchar not null, dimension varchar,
        source varchar not null check (source in ('user', 'model')),
        probability double, run_id bigint, place bigint not null,
        created timestamp not null default current_timestamp::timestamp,
        check ((source = 'user') = (run_id is null))
    );
    create table rejections (            -- tags that a user took away
        dataset_id bigint not null, sample_id bigint not null, tag varchar not null
    );
    create table answers (
        dataset_id bigint not null, run_id bigint not null, sample_id bigint not null, dimension varchar not null,
        place integer not null, words varchar[] not null, probabilities float[] not null, mass double,
        word varchar not null, probability double, accepted boolean not null, reason varchar not null,
        text varchar not null, current boolean not null
    );
    create table run_samples (           -- finished work: exactly once, and where to resume
        run_id bigint not null, sample_id bigint not null, dataset_id bigint not null,
        status varchar not null check (status in ('done', 'failed')), error varchar not null, change bigint not null,
        primary key (run_id, sample_id)
    );
    """,
]


def migrate(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Bring the file to the newest version, after a backup copy if it holds something.

    The caller holds the file's lock.

    Raises:
        StoreCorrupt: the file is of a newer DataVisor.
    """
    connection.execute("create table if not exists meta (version integer not null)").fetchall()
    rows = connection.execute("select version from meta").fetchall()
    version = rows[0][0] if rows else 0
    if version == len(MIGRATIONS):
        return
    if version > len(MIGRATIONS):
        raise StoreCorrupt(
            f"{path} has version {version} of the tables, this DataVisor knows {len(MIGRATIONS)}. Install a newer release."
        )
    if version:
        back_up(connection, path, path.with_name(f"{path.stem}.v{version}.duckdb"))
    connection.begin()
    try:
        for script in MIGRATIONS[version:]:
            connection.execute(script).fetchall()
        connection.execute("delete from meta").fetchall()
        connection.execute("insert into meta values (?)", [len(MIGRATIONS)]).fetchall()
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def back_up(connection: duckdb.DuckDBPyConnection, path: Path, target: Path) -> None:
    """Write a compact copy of the database to ``target``, in place of an older one."""
    partial = target.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    name = connection.execute("select current_database()").fetchall()[0][0]
    quoted = str(partial).replace("'", "''")
    connection.execute(f"attach '{quoted}' as backup").fetchall()
    try:
        connection.execute(f'copy from database "{name}" to backup').fetchall()
    finally:
        connection.execute("detach backup").fetchall()
    shutil.move(partial, target)
