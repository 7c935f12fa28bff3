-- Body of the function behind the capture trigger of a table with in-transaction receivers: the changed
-- rows go to the buffer, and rows with other receivers also become events.
--
-- A table has one statement-level trigger for each operation; a partitioned one has row-level triggers, which
-- PostgreSQL creates on every partition, including later ones.

#variable_conflict use_column
<<bulksafe>>
DECLARE
    source CONSTANT regclass := COALESCE(pg_partition_root(TG_RELID), TG_RELID);
    part CONSTANT regclass := TG_RELID;
    depth CONSTANT smallint := pg_trigger_depth();
    context jsonb := NULLIF(current_setting('bulksafe.context', true), '')::jsonb;
    captured boolean := false;
    places tid[];
    notice text;
    callers text;
    -- Django has the rows in hand and calls the receivers itself: then a mark for this session and this table ends the
    -- statement's text. Only the application's roles may use it. It is ignored in row-level triggers, which would check
    -- the text for every row, and for writes of triggers. There is no text while a transaction of the extended protocol
    -- is committed.
    mark CONSTANT text := format(' %%s %%s */', pg_backend_pid(), TG_TABLE_NAME);
    ending CONSTANT text := CASE WHEN TG_LEVEL = 'STATEMENT' AND pg_trigger_depth() = 1
                                 THEN right(current_query(), length(mark) + 22) END;
    -- With this mark, the statement returns them to Django, and so may not change too many.
    returns CONSTANT boolean := ending IS NOT DISTINCT FROM '/* bulksafe: return to' || mark;
    -- With this one and the one before, Django has them only if it receives the notice below, which a muted capture does
    -- not send.
    answers CONSTANT boolean := returns OR ending IS NOT DISTINCT FROM '/* bulksafe: answer to' || mark;
    in_hand boolean := answers OR right(ending, length(mark) + 20) IS NOT DISTINCT FROM '/* bulksafe: in hand' || mark;
BEGIN
    IF NOT :unmuted THEN
        RETURN NULL;
    END IF;
    -- Receivers are not called for their own writes: only the application may set the writer.
    IF jsonb_exists(context, 'bulksafe.written_by') AND NOT :is_application THEN
        context := context - 'bulksafe.written_by';
    END IF;
    IF in_hand THEN
        -- A function that the statement calls, in an expression or a default, may also write to the table.
        GET DIAGNOSTICS callers = PG_CONTEXT;
        in_hand := strpos(callers, chr(10)) = 0 AND :is_application;
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
