-- Takes the in-target level of epochgate away for one resource: its triggers, wherever they are, and its row; with the
-- last resource the schema as well, unless somebody has put something else into it.
-- From then on nothing in the database refuses a write. Run it as the owner of the tables.

BEGIN;
-- Names below are quoted as the standard has it.
SET LOCAL standard_conforming_strings = on;
SET LOCAL lock_timeout = '5s';

DO $epochgate$
DECLARE
    fenced regclass;
BEGIN
    FOR fenced IN
        SELECT t.tgrelid FROM pg_catalog.pg_trigger t
        JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
        JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = @SCHEMA_TEXT@ AND p.proname = 'fence' AND t.tgname = 'epochgate_fence'
        -- Arguments stand one after the other, each with a zero byte behind it.
        AND substring(t.tgargs FOR octet_length(@RESOURCE@) + 1) = convert_to(@RESOURCE@, 'UTF8') || '\x00'::bytea
    LOOP
        EXECUTE format('DROP TRIGGER epochgate_fence ON %s', fenced);
    END LOOP;
    DELETE FROM @SCHEMA@.epochs WHERE resource = @RESOURCE@;
    IF NOT EXISTS (SELECT FROM @SCHEMA@.epochs) THEN
        DROP FUNCTION @SCHEMA@.fence();
        DROP FUNCTION @SCHEMA@.raise_epoch(text, bigint, text, text);
        DROP TABLE @SCHEMA@.epochs;
        DROP SCHEMA @SCHEMA@;
    END IF;
END
$epochgate$;

COMMIT;
