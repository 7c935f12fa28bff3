-- Body of the function behind the trigger that collects a write: its rows are kept, and nothing is written. The
-- writer's session stores them when it has called the receivers that come before the write.
--
-- The rows are kept as text: jsonb loses a JSON null, the sign of a zero and the bounds of an array.

DECLARE
    callers text;
BEGIN
    -- A mode that another transaction has left, or that somebody has set by hand, collects nothing: without a ticket,
    -- nobody would see at the commit that the rows are not written.
    IF current_setting('bulksafe.stage', true) IS DISTINCT FROM 'collect ' || pg_current_xact_id()::text
        OR NOT EXISTS (SELECT FROM %10$I.bulksafe_ticket AS t WHERE t.xid = pg_current_xact_id())
    THEN
        IF TG_OP = 'DELETE' THEN
            RETURN OLD;
        END IF;
        RETURN NEW;
    END IF;
    -- Below the statement itself nobody expects that nothing is written: a foreign key's own DELETE that finds its
    -- rows gone, and they are not, commits orphans.
    GET DIAGNOSTICS callers = PG_CONTEXT;
    IF pg_trigger_depth() > 1 OR strpos(callers, chr(10)) > 0 THEN
        RAISE EXCEPTION USING
            ERRCODE = 'BS004',
            MESSAGE = format('%%s is written from inside a function or a trigger, which cannot be collected', TG_RELID::regclass);
    END IF;
    INSERT INTO %10$I.bulksafe_staged (source, operation, old, new)
    VALUES (TG_RELID, left(TG_OP, 1)::"char", OLD::text, NEW::text);
    RETURN NULL;
END
