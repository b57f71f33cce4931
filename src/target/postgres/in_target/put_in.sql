-- The in-target level of epochgate for one resource: a write of another epoch than the resource's fails in the database.
-- Run it as the owner of the tables, in their database:  epochgate sql postgres … | psql -v ON_ERROR_STOP=1 …
-- It may be run again at any time, and is to be when a table or a partition was added.
-- Before, once, as a superuser, the role of the guard's control connection:
--   CREATE ROLE @GUARD@ LOGIN PASSWORD '…'; GRANT pg_monitor, pg_signal_backend TO @GUARD@;
-- Until the guard has raised the epoch for the first time (at the next handoff), every session may write.

BEGIN;
-- A trigger is made under a lock that waits for writers and has new ones wait: rather fail than stop the world.
-- Names below are quoted as the standard has it.
SET LOCAL standard_conforming_strings = on;
SET LOCAL lock_timeout = '5s';

CREATE SCHEMA IF NOT EXISTS @SCHEMA@;

CREATE TABLE IF NOT EXISTS @SCHEMA@.epochs (
    resource  text PRIMARY KEY,
    epoch     bigint NOT NULL CHECK (epoch BETWEEN 0 AND 999999999999999),
    nonce     text,
    writer    text,
    raised_at timestamptz
) WITH (fillfactor = 10);
COMMENT ON TABLE @SCHEMA@.epochs IS 'epochgate: the epoch of each fenced resource; raised by the guard, never by hand';

INSERT INTO @SCHEMA@.epochs (resource, epoch) VALUES (@RESOURCE@, 0) ON CONFLICT DO NOTHING;

-- Before each statement that writes. First the mark, then the look: a raise that this look does not see yet sees the mark,
-- and waits for this transaction.
CREATE OR REPLACE FUNCTION @SCHEMA@.fence() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $epochgate$
DECLARE
    given text := current_setting('epochgate.epoch', true);
    claimed bigint := 0;
    required bigint;
    leader text;
BEGIN
    IF given ~ '^[1-9][0-9]{0,14}$' THEN
        claimed := given::bigint;
    END IF;
    -- An expression, and no query of its own, which would cost a fifth of it all. It is never null.
    IF pg_advisory_xact_lock_shared(TG_ARGV[1]::int, (claimed << 32 >> 32)::int) IS NULL THEN
        RAISE EXCEPTION 'epochgate: no mark was taken';
    END IF;
    IF current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
        SELECT e.epoch INTO required FROM @SCHEMA@.epochs e WHERE e.resource = TG_ARGV[0];
    ELSE
        -- The snapshot may be older than the mark: a row that has changed since makes this fail with 40001.
        SELECT e.epoch INTO required FROM @SCHEMA@.epochs e WHERE e.resource = TG_ARGV[0] FOR SHARE;
    END IF;
    IF required = claimed OR required = 0 THEN
        RETURN NULL;
    END IF;
    SELECT e.writer INTO leader FROM @SCHEMA@.epochs e WHERE e.resource = TG_ARGV[0];
    RAISE EXCEPTION USING
        ERRCODE = 'read_only_sql_transaction',
        MESSAGE = format('epochgate: not applied: %s needs epoch %s to write to table %s',
                         TG_ARGV[0], coalesce(required::text, '(it has no row)'), TG_RELID::regclass),
        DETAIL = format('This session has %s. The leader is %s.',
                        CASE WHEN claimed > 0 THEN 'epoch ' || claimed ELSE 'no epoch' END, coalesce(leader, 'unknown')),
        HINT = CASE
            WHEN claimed > required THEN 'The handoff to this epoch is not over yet: try again.'
            ELSE 'Connect again, through the stamp of the leader; without a sidecar: options=''-c epochgate.epoch=N''.'
        END;
END
$epochgate$;

-- For the guard: only upwards, and only where there is a row. It waits no longer than its lock_timeout.
CREATE OR REPLACE FUNCTION @SCHEMA@.raise_epoch(of_resource text, to_epoch bigint, with_nonce text, by_writer text)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $epochgate$
DECLARE
    known @SCHEMA@.epochs;
BEGIN
    SELECT * INTO known FROM @SCHEMA@.epochs e WHERE e.resource = of_resource FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF known.epoch > to_epoch THEN
        RAISE EXCEPTION USING
            ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('epochgate: %s is at epoch %s in this database, above %s', of_resource, known.epoch, to_epoch),
            HINT = 'An epoch never goes down. If the coordinator was restored, see `epochgate rebase`.';
    END IF;
    IF known.epoch = to_epoch AND known.nonce <> with_nonce THEN
        RAISE EXCEPTION USING
            ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('epochgate: epoch %s of %s is that of another term: nonce %s, not %s',
                             to_epoch, of_resource, known.nonce, with_nonce),
            HINT = 'Two coordinators mint epochs for this resource, or one was restored. See `epochgate rebase`.';
    END IF;
    IF known.epoch < to_epoch THEN
        UPDATE @SCHEMA@.epochs e SET epoch = to_epoch, nonce = with_nonce, writer = by_writer, raised_at = now()
        WHERE e.resource = of_resource;
    END IF;
    RETURN true;
END
$epochgate$;

REVOKE ALL ON FUNCTION @SCHEMA@.fence(), @SCHEMA@.raise_epoch(text, bigint, text, text) FROM PUBLIC;
GRANT USAGE ON SCHEMA @SCHEMA@ TO @GUARD@;
GRANT SELECT ON @SCHEMA@.epochs TO @GUARD@;
GRANT EXECUTE ON FUNCTION @SCHEMA@.raise_epoch(text, bigint, text, text) TO @GUARD@;
@READERS@
-- One trigger on each table, and on each partition and child of it: a statement fires those of the table that it names.
-- ALWAYS: session_replication_role = replica turns off all others.
DO $epochgate$
DECLARE
    named regclass;
    found regclass;
    kind "char";
BEGIN
    FOREACH named IN ARRAY ARRAY[@TABLES@]::regclass[] LOOP
        FOR found, kind IN
            WITH RECURSIVE family AS (
                SELECT named::oid AS member
                UNION
                SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN family f ON i.inhparent = f.member
            )
            SELECT c.oid::regclass, c.relkind FROM family f JOIN pg_catalog.pg_class c ON c.oid = f.member
        LOOP
            IF kind = 'f' THEN
                RAISE EXCEPTION '% is a foreign table: its rows are another database''s, and TRUNCATE has no trigger on it', found;
            END IF;
            IF kind NOT IN ('r', 'p') THEN
                RAISE EXCEPTION '% is no table: name the tables under it', found;
            END IF;
            EXECUTE format('CREATE OR REPLACE TRIGGER epochgate_fence BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s '
                           'FOR EACH STATEMENT EXECUTE FUNCTION %I.fence(%L, %L)', found, @SCHEMA_TEXT@, @RESOURCE@, @MARK@);
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER epochgate_fence', found);
        END LOOP;
    END LOOP;
END
$epochgate$;

COMMIT;
