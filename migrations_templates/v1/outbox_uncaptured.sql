-- Refuses to drop the tables that triggers write to: every later write of their tables would fail.

DO $bulksafe$
DECLARE
    tables text;
BEGIN
    SELECT string_agg(DISTINCT t.tgrelid::regclass::text, ', ') INTO tables
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_proc AS p
      ON strpos(p.prosrc, format('%I.bulksafe_outbox', n.nspname)) > 0
      OR strpos(p.prosrc, format('%I.bulksafe_buffer', n.nspname)) > 0
      OR strpos(p.prosrc, format('%I.bulksafe_record(', n.nspname)) > 0
    JOIN pg_trigger AS t ON t.tgfoid = p.oid
    WHERE c.oid = to_regclass('bulksafe_outbox')
      AND NOT t.tgisinternal
      AND t.tgparentid = 0
      AND t.tgrelid IS DISTINCT FROM to_regclass('bulksafe_ticket');
    IF tables IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'object_in_use',
            MESSAGE = concat('triggers still write to bulksafe''s tables, and every write would fail without them: ', tables),
            HINT = 'First take the critical receivers of these tables out of the code, and the rules with mode="observe", then run '
                   '“manage.py makemigrations” and “manage.py migrate”, which drops the triggers.';
    END IF;
END
$bulksafe$;
