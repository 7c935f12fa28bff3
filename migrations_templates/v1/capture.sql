-- Body of the function behind a capture trigger: the changed rows become events.
--
-- A table has one statement-level trigger for each operation; a partitioned one has row-level triggers, which
-- PostgreSQL gives to every partition, also to those made later.

#variable_conflict use_column
<<bulksafe>>
DECLARE
    source CONSTANT regclass := COALESCE(pg_partition_root(TG_RELID), TG_RELID);
    part CONSTANT regclass := TG_RELID;
    depth CONSTANT smallint := pg_trigger_depth();
    context jsonb := NULLIF(current_setting('bulksafe.context', true), '')::jsonb;
    captured boolean := false;
BEGIN
    IF NOT :unmuted THEN
        RETURN NULL;
    END IF;
    -- Receivers are not called for their own writes: only the application may set the writer.
    IF jsonb_exists(context, 'bulksafe.written_by') AND NOT :is_application THEN
        context := context - 'bulksafe.written_by';
    END IF;
    IF TG_LEVEL = 'ROW' THEN
:by_row
    ELSE
:by_statement
    END IF;
    -- A sleeping listener holds this lock exclusively. An awake one needs no NOTIFY, which would serialize all commits.
    IF captured AND NOT pg_try_advisory_xact_lock_shared(1651862123, 0) THEN
        PERFORM pg_notify('bulksafe', '');
    END IF;
    RETURN NULL;
END
