-- Body of the function behind the trigger that collects the rows of a write before they are written. The writer's
-- session calls the receivers before the write, and writes the rows afterwards.
--
-- In the mode "collect" nothing is written. In the mode "record" the rows are written too, so that the session can
-- determine which of them conflict with stored rows; it rolls that back.
--
-- The rows are kept as text: jsonb loses a JSON null, the sign of a zero and the bounds of an array.

DECLARE
    mode CONSTANT text := split_part(current_setting('bulksafe.stage', true), ' ', 1);
    known CONSTANT text := COALESCE(current_setting('bulksafe.staged', true), '');
    -- The ticket's place.
    ticket CONSTANT text := split_part(current_setting('bulksafe.stage', true), ' ', 3);
    callers text;
    place tid;
BEGIN
    -- Ignore a mode left by another transaction or set manually: without a ticket, the commit would not be refused
    -- although rows are not written. Triggers repeat their own writes when the recorded rows are written.
    IF mode IN ('collect', 'record')
        AND current_setting('bulksafe.stage', true) = concat_ws(' ', mode, pg_current_xact_id(), ticket)
        AND (mode = 'collect' OR pg_trigger_depth() = 1)
    THEN
        INSERT INTO %10$I.bulksafe_staged AS s (source, operation, old, new)
        SELECT TG_RELID, left(TG_OP, 1)::"char", OLD::text, NEW::text
        FROM %10$I.bulksafe_ticket AS t
        WHERE t.ctid = NULLIF(ticket, '')::tid AND t.xid = pg_current_xact_id() AND t.staged
        RETURNING s.ctid INTO place;
    END IF;
    IF place IS NULL THEN
        IF TG_OP = 'DELETE' THEN
            RETURN OLD;
        END IF;
        RETURN NEW;
    END IF;
    -- Rows of nested statements must not be left unwritten: skipping a foreign key's own DELETE would commit orphans.
    GET DIAGNOSTICS callers = PG_CONTEXT;
    IF pg_trigger_depth() > 1 OR strpos(callers, chr(10)) > 0 THEN
        RAISE EXCEPTION USING
            ERRCODE = 'BS004',
            MESSAGE = format('%%s is written from inside a function or a trigger, which cannot be collected', TG_RELID::regclass);
    END IF;
    -- A few rows are found by their places: a look into the index would conflict with all other writers at SERIALIZABLE.
    IF known <> 'all' THEN
        PERFORM set_config(
            'bulksafe.staged',
            CASE WHEN length(known) < 4000 THEN concat_ws(' ', NULLIF(known, ''), place) ELSE 'all' END,
            true
        );
    END IF;
    IF mode = 'record' THEN
        RETURN NEW;
    END IF;
    RETURN NULL;
END
