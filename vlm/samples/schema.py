"""The tables, and the way from one version of them to the next.

No foreign keys (DuckDB then refuses updates of ``samples.tags``) and no index but the primary keys (each is rewritten at
every update of a row). The last columns of ``samples`` are derived from the ledger and the answers by ``deriving.derive``.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from .cursor import Cursor
from .errors import StoreCorrupt
from .names import search_key, sort_key
from .tallying import tally

VERSION_1 = """
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
"""

VERSION_2 = """
    alter table meta add column store_id varchar;    -- Django's database holds the same, so that neither meets a stranger
    update meta set store_id = uuid()::varchar;

    create sequence edit_ids;
    create sequence question_ids;
    create sequence label_ids;
    create sequence column_ids;

    create table dataset_revisions (dataset_id bigint primary key, number bigint not null);  -- grows with every change

    create table edits (                 -- what users did; a row of the ledger names the edits that began and ended it
        id bigint primary key, dataset_id bigint not null, user_id bigint, user_name varchar not null,
        way varchar not null, action varchar not null, tag varchar not null, value varchar not null, dimension varchar,
        samples bigint not null, created timestamp not null default current_timestamp::timestamp,
        undone_by bigint,
        questions bigint not null        -- how many there were: a renamed word of a later question is another word
    );
    alter table sample_tags add column edit_id bigint;   -- null: by a run, or before edits were kept
    alter table sample_tags add column ended_by bigint;  -- null: in force
    alter table rejections add column edit_id bigint;
    alter table rejections add column ended_by bigint;

    create table questions (             -- what was asked of whom: equal keys, equal questions
        id bigint primary key, key varchar unique not null, model varchar not null, revision varchar not null,
        mode varchar not null, dimension varchar not null, asked json not null
    );
    alter table answers add column question_id bigint;               -- null: of a version 1 store, not adopted yet
    alter table answers add column stale boolean default false;      -- about a content that the file no longer has
    alter table run_samples add column stale boolean default false;
    create table runs_to_adopt (run_id bigint not null, dataset_id bigint not null);  -- their answers lack questions
    insert into runs_to_adopt select distinct run_id, dataset_id from answers;

    create table run_totals (
        run_id bigint primary key, dataset_id bigint not null, detail varchar not null, dtype varchar not null,
        processed bigint not null, tagged bigint not null, discarded bigint not null, failed bigint not null
    );
    insert into run_totals
    select r.run_id, any_value(r.dataset_id), '', '', count(*), coalesce(any_value(a.tagged), 0),
        coalesce(any_value(a.discarded), 0), count(*) filter (r.status = 'failed')
    from run_samples r left join (
        select run_id, count(distinct sample_id) filter (accepted) as tagged, count(*) filter (not accepted) as discarded
        from answers group by all
    ) a on a.run_id = r.run_id group by r.run_id;
    create table run_claims (run_id bigint primary key, dataset_id bigint not null, worker varchar not null);

    alter table samples add column digest varchar;                   -- SHA-256 of the file's bytes, once it was read
    alter table samples add column source_file varchar default '';   -- the JSON that described it, below the root
    alter table samples add column search varchar default '';        -- see names.search_key
    alter table samples add column sort varchar default '';          -- see names.sort_key
    alter table samples add column answered bigint[] default [];     -- questions with an answer about the present content

    create table labels (                -- what somebody decided, tag or not; probability: of the sample to be drawn
        id bigint not null, dataset_id bigint not null, sample_id bigint not null, dimension varchar not null,
        word varchar not null, probability double, stratum varchar not null, design varchar not null,
        user_id bigint, user_name varchar not null, way varchar not null, edit_id bigint, ended_by bigint,
        created timestamp not null default current_timestamp::timestamp
    );
    create table draws (                 -- samples that wait to be labelled
        dataset_id bigint not null, dimension varchar not null, batch varchar not null, sample_id bigint not null,
        place bigint not null, probability double, stratum varchar not null, claimed_by varchar,
        claimed_at timestamp, done boolean not null
    );
    create table columns (               -- values that a user brought along, such as a detector's error
        id bigint primary key, dataset_id bigint not null, name varchar not null,
        kind varchar not null check (kind in ('number', 'boolean', 'word'))
    );
    create table column_values (
        dataset_id bigint not null, column_id bigint not null, sample_id bigint not null, number double, word varchar
    );
    create table measures (              -- what the pixels say
        dataset_id bigint not null, sample_id bigint not null, luminance double, p05 double, p95 double, contrast double,
        sharpness double, noise double, colourfulness double, aspect double, phash ubigint
    );
    create table marks (                 -- what was found about samples: contradictions, groups that are nearly the same
        dataset_id bigint not null, kind varchar not null, sample_id bigint not null, member_of bigint, value double,
        word varchar
    );
    create table slice_samples (         -- samples that were frozen, however their tags change
        dataset_id bigint not null, slice_id bigint not null, sample_id bigint not null
    );
"""

VERSION_3 = """
    create table conditions (            -- the vocabulary's: tags of the dimension only where a sample has one of the words
        dimension varchar primary key, only_words varchar[] not null
    );
    create table answer_images (         -- how answers were before an edit of the vocabulary changed their words
        edit_id bigint not null, dataset_id bigint not null, run_id bigint not null, sample_id bigint not null,
        dimension varchar not null, question_id bigint, words varchar[] not null, probabilities float[] not null,
        word varchar not null, probability double
    );
"""

VERSION_4 = """
    alter table run_samples add column detail varchar default '';    -- which pass answered; see refining
"""

VERSION_5 = """
    alter table columns add column description varchar default '';   -- what users say that it is
    alter table columns add column source varchar default '';        -- name of the table that its values came from
    alter table columns add column user_name varchar default '';     -- who brought them
    alter table columns add column created timestamp;                -- when; null: before this was kept
"""

VERSION_6 = """
    create table errands (               -- what was done for Django's database, which cannot commit together with this one
        key varchar primary key, result json not null, created timestamp not null default current_timestamp::timestamp
    );
"""

VERSION_7 = """
    alter table marks add column measure varchar default '';         -- of a contradiction: what is strange, and on which side
    create table findings (              -- when somebody looked for marks, with which setting, at how many measured samples
        dataset_id bigint not null, kind varchar not null, setting double not null, samples bigint not null,
        revision bigint not null, created timestamp not null default current_timestamp::timestamp
    );
"""

VERSION_8 = """
    create table calibrations (          -- in force: one for a dimension of a data set; see calibrating
        dataset_id bigint not null, dimension varchar not null, question_id bigint not null, dtype varchar not null,
        detail varchar not null, slope double not null, bias double[] not null, least double not null, record json not null,
        before json not null, user_id bigint, user_name varchar not null,
        created timestamp not null default current_timestamp::timestamp
    );
    alter table answers add column raw struct(probabilities float[], word varchar, probability double, accepted boolean,
        reason varchar);                 -- what the model said itself; null: the answer is that
"""

VERSION_9 = """
    alter table samples add column bytes bigint;     -- of the file, as its content key says
    alter table samples add column taken timestamp;  -- when, by the camera's clock
    alter table samples add column camera varchar;   -- '' where the file names none; null: nobody has read its head yet
    update samples set bytes = try_cast(split_part(content_key, '-', 1) as bigint);
"""

VERSION_10 = """
    create table shares (                -- of runs that ask one sample of each group: whose answer a sample takes; see sharing
        dataset_id bigint not null, run_id bigint not null, sample_id bigint not null, source_id bigint not null
    );
    alter table run_totals add column shared bigint default 0;       -- of the processed samples, how many took another's answer
"""

VERSION_11 = """
    create table tallies (               -- how many samples of a data set have which value of a facet; see tallying
        dataset_id bigint not null, facet varchar not null, value varchar not null, number bigint not null
    );
"""

# Tables that belong to a data set, and to its samples; of runs; and those whose rows edits begin and end.
SAMPLE_TABLES = (
    *("annotations", "sample_tags", "rejections", "answers", "run_samples"),
    *("labels", "draws", "column_values", "measures", "marks", "slice_samples", "answer_images", "shares"),
)
DATASET_TABLES = (
    *("samples", *SAMPLE_TABLES),
    *("edits", "run_totals", "run_claims", "runs_to_adopt", "columns", "dataset_revisions", "findings", "calibrations"),
    "tallies",
)
RUN_TABLES = ("sample_tags", "answers", "run_samples", "run_totals", "run_claims", "runs_to_adopt", "shares")
EDITED_TABLES = ("sample_tags", "rejections", "labels")

STEP = 50_000  # file names whose keys are written together


def _keep_keys_of_names(cursor: Cursor) -> None:
    """Write the keys of the file names that a version 1 store holds."""
    low = -1
    while rows := cursor.execute(
        "select id, file_name from samples where id > ? order by id limit ?", [low, STEP]
    ).fetchall():
        low = rows[-1][0]
        cursor.execute(
            "update samples s set search = k.search, sort = k.sort from (select unnest(?::bigint[]) as id, "
            "unnest(?::varchar[]) as search, unnest(?::varchar[]) as sort) k where k.id = s.id",
            [[row[0] for row in rows], [search_key(row[1]) for row in rows], [sort_key(row[1]) for row in rows]],
        ).fetchall()


def _tally(cursor: Cursor) -> None:
    """Count the samples of every data set."""
    for (dataset_id,) in cursor.execute("select distinct dataset_id from samples").fetchall():
        tally(cursor, dataset_id)


Step = str | Callable[[Cursor], None]

# One entry per version, each of one or more steps. Only ever append.
MIGRATIONS: list[tuple[Step, ...]] = [
    (VERSION_1,),
    (VERSION_2, _keep_keys_of_names),
    (VERSION_3,),
    (VERSION_4,),
    (VERSION_5,),
    (VERSION_6,),
    (VERSION_7,),
    (VERSION_8,),
    (VERSION_9,),
    (VERSION_10,),
    (VERSION_11, _tally),
]


def migrate(cursor: Cursor, path: Path) -> None:
    """Bring the file to the newest version, after a backup copy if it holds something.

    The caller holds the file's lock.

    Raises:
        StoreCorrupt: the file is of a newer DataVisor.
    """
    cursor.execute("create table if not exists meta (version integer not null)").fetchall()
    rows = cursor.execute("select version from meta").fetchall()
    version = rows[0][0] if rows else 0
    if version == len(MIGRATIONS):
        return
    if version > len(MIGRATIONS):
        raise StoreCorrupt(
            f"{path} has version {version} of the tables, this DataVisor knows {len(MIGRATIONS)}. Install a newer release."
        )
    if version:
        back_up(cursor, path, path.with_name(f"{path.stem}.v{version}.duckdb"))
    _advance(cursor, version, len(MIGRATIONS))


def build(cursor: Cursor, version: int) -> None:
    """Make the tables of a version in an empty database."""
    cursor.execute("create table meta (version integer not null)").fetchall()
    _advance(cursor, 0, version)


def _advance(cursor: Cursor, since: int, until: int) -> None:
    """Bring the tables from one version to another, or leave them."""
    cursor.begin()
    try:
        if not since:
            cursor.execute("insert into meta (version) values (0)").fetchall()
        for steps in MIGRATIONS[since:until]:
            for step in steps:
                if callable(step):
                    step(cursor)
                else:
                    cursor.execute(step).fetchall()
        cursor.execute("update meta set version = ?", [until]).fetchall()
    except BaseException:
        cursor.rollback()
        raise
    cursor.commit()


def back_up(cursor: Cursor, path: Path, target: Path) -> None:
    """Write a compact copy of the database to ``target``, in place of an older one."""
    partial = target.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    name = cursor.execute("select current_database()").fetchall()[0][0]
    quoted = str(partial).replace("'", "''")
    cursor.execute(f"attach '{quoted}' as backup").fetchall()
    try:
        cursor.execute(f'copy from database "{name}" to backup').fetchall()
    finally:
        cursor.execute("detach backup").fetchall()
    partial.chmod(0o600)
    shutil.move(partial, target)
