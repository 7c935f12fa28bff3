-- Body of the function behind the capture trigger of a table with receivers in the writer's transaction: the changed
-- rows go to the buffer, and those that other receivers are called for become events as well.
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
    buffered boolean := false;
    told text;
    callers text;
    -- Django has the rows in hand and calls the receivers itself; it says so behind the statement's text, for this
    -- session and this table. Only the application's roles are believed. Not in a row-level trigger, which would look at the text for every row, and not for what
    -- triggers write. There is no text while a transaction of the extended protocol is committed.
    mark CONSTANT text := format(' %%s %%s */', pg_backend_pid(), TG_TABLE_NAME);
    ending CONSTANT text := CASE WHEN TG_LEVEL = 'STATEMENT' AND pg_trigger_depth() = 1
                                 THEN right(current_query(), length(mark) + 22) END;
    -- Or it has them if it hears that this has seen them: it does not, if this is muted.
    answers CONSTANT boolean := ending IS NOT DISTINCT FROM '/* bulksafe: answer to' || mark;
    in_hand boolean := answers OR right(ending, length(mark) + 20) IS NOT DISTINCT FROM '/* bulksafe: in hand' || mark;
BEGIN
    IF NOT :unmuted THEN
        RETURN NULL;
    END IF;
    -- Receivers are not called for what they wrote themselves: only the application may say what that is.
    IF jsonb_exists(context, 'bulksafe.written_by') AND NOT :is_application THEN
        context := context - 'bulksafe.written_by';
    END IF;
    IF in_hand THEN
        -- A function that the statement calls, in an expression or a default, may write to the table as well.
        GET DIAGNOSTICS callers = PG_CONTEXT;
        in_hand := strpos(callers, chr(10)) = 0 AND :is_application;
    END IF;
    IF TG_LEVEL = 'ROW' THEN
:by_row
    ELSE
:by_statement
    END IF;
    -- A listener that sleeps holds this lock exclusively. One that is awake needs no NOTIFY, which would
    -- make all committing transactions wait for each other.
    IF captured AND NOT pg_try_advisory_xact_lock_shared(1651862123, 0) THEN
        PERFORM pg_notify('bulksafe', '');
    END IF;
    -- The ticket is looked at when the transaction commits, also where the writer wants constraints checked at once:
    -- the receivers come after the statement. The table itself is asked: a setting could be forged.
    IF buffered AND NOT EXISTS (SELECT FROM %10$I.bulksafe_ticket AS t WHERE t.xid = pg_current_xact_id()) THEN
        SET CONSTRAINTS %10$I.bulksafe_ticket_open DEFERRED;
        INSERT INTO %10$I.bulksafe_ticket DEFAULT VALUES;
    END IF;
    RETURN NULL;
END
