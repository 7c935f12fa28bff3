-- What receivers in the writer's transaction need: the buffer of changes that they have not seen yet, the tickets
-- that let no transaction commit before they have, and their names. A second run changes nothing.
--
-- Nothing in the buffer outlives its transaction or is visible to others: neither table needs to survive a crash.
--
-- All transactions write to these tables. At SERIALIZABLE, a transaction that reads an index page, or a whole table,
-- conflicts with all that insert there. So a transaction finds its own rows by their places (ctid), which it keeps in
-- settings. Every role could forge these: each row that is found is checked to be of this transaction, and a row that
-- is not found refuses the commit. IS NOT DISTINCT FROM and “+ 0” keep the planner from using the index for these look-ups.
-- Beyond some hundred places a setting would cost more than the index does, which is then used. For an array of places,
-- PostgreSQL would plan again each time: the functions say that it keeps the plan.

DO $bulksafe$
DECLARE
    caller_path CONSTANT text := pg_catalog.current_setting('search_path');
    -- Beside the outbox.
    home CONSTANT name := (
:home
    );
    is_there CONSTANT boolean := EXISTS (
        SELECT FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = home AND c.relname = 'bulksafe_buffer'
    );
    stranger record;
BEGIN
    -- Names without a schema are those of this one, not of the temporary one.
    PERFORM pg_catalog.set_config('search_path', format('%I, pg_temp', home), true);
:strangers
    IF is_there THEN
        PERFORM pg_catalog.set_config('search_path', caller_path, true);
        RETURN;
    END IF;

    CREATE UNLOGGED TABLE bulksafe_buffer (
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        seq bigint NOT NULL DEFAULT nextval('bulksafe_outbox_seq'),
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        source regclass NOT NULL,
        part regclass,
        operation "char" NOT NULL,
        depth smallint NOT NULL,
        key text NOT NULL,
        old jsonb,
        new jsonb,
        matched text[],
        -- Whether a receiver waits for it without which the transaction may not commit.
        refused boolean NOT NULL,
        context jsonb
    );
    CREATE INDEX bulksafe_buffer_xid_seq ON bulksafe_buffer (xid, seq);

    -- What is looked at when the transaction commits: rows of the buffer, or a write that is collected and not made yet.
    CREATE UNLOGGED TABLE bulksafe_ticket (
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        source regclass,
        operation "char",
        -- The places of the rows. NULL: any row of the transaction.
        rows tid[],
        staged boolean NOT NULL
    );

    -- The rows of a write that was collected and is not made yet, as text.
    CREATE UNLOGGED TABLE bulksafe_staged (
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        n bigint GENERATED ALWAYS AS IDENTITY,
        source regclass NOT NULL,
        operation "char" NOT NULL,
        old text,
        new text,
        PRIMARY KEY (xid, n)
    );

    -- Which receivers there are, for messages: "migrate" notes them.
    CREATE TABLE bulksafe_receiver (
        source oid NOT NULL,
        operation "char" NOT NULL,
        receiver text NOT NULL,
        otherwise text NOT NULL,
        PRIMARY KEY (source, operation, receiver)
    );

    -- Opens a ticket: returns its place. It is looked at when the transaction commits, even if the writer has set
    -- constraints IMMEDIATE. The setting says that it has been seen to; forged, it gets its own write refused.
    EXECUTE format($ddl$
        CREATE FUNCTION %1$I.bulksafe_open(source regclass, operation "char", rows tid[], staged boolean) RETURNS tid
        LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, pg_temp
        AS $body$
        DECLARE
            place tid;
        BEGIN
            IF current_setting('bulksafe.deferred', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
                SET CONSTRAINTS %1$I.bulksafe_ticket_open DEFERRED;
                PERFORM set_config('bulksafe.deferred', pg_current_xact_id()::text, true);
            END IF;
            INSERT INTO %1$I.bulksafe_ticket AS t (source, operation, rows, staged)
            VALUES (source, operation, rows, staged)
            RETURNING t.ctid INTO place;
            RETURN place;
        END
        $body$
    $ddl$, home);

    -- The capture calls it with the rows that it has added to the buffer. The setting lists the tickets that
    -- bulksafe_take() has not closed, or names the one ticket that is for all rows from then on.
    EXECUTE format($ddl$
        CREATE FUNCTION %1$I.bulksafe_added(source regclass, operation "char", rows tid[]) RETURNS void
        LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, pg_temp
        SET enable_seqscan = off
        SET plan_cache_mode = force_generic_plan
        AS $body$
        DECLARE
            waiting text := COALESCE(current_setting('bulksafe.waiting', true), '');
        BEGIN
            IF length(waiting) < 4000 AND NOT starts_with(waiting, 'all ') THEN
                waiting := concat_ws(' ', NULLIF(waiting, ''), %1$I.bulksafe_open(source, operation, rows, false));
            ELSIF NOT starts_with(waiting, 'all ') OR NOT EXISTS (
                SELECT FROM %1$I.bulksafe_ticket AS t
                WHERE t.ctid = substr(waiting, 5)::tid AND t.xid = pg_current_xact_id() AND t.rows IS NULL AND NOT t.staged
            ) THEN
                waiting := concat('all ', %1$I.bulksafe_open(NULL, NULL, NULL, false));
            ELSE
                RETURN;
            END IF;
            PERFORM set_config('bulksafe.waiting', waiting, true);
        END
        $body$
    $ddl$, home);

    -- A session that dispatches takes what its transaction wrote, without a right on the tables. These are whole rows,
    -- so only the application's roles may call it. If more rows than "most" wait, or the changes of many statements, it
    -- takes none: the session takes them in chunks then.
    EXECUTE format($ddl$
        CREATE FUNCTION %1$I.bulksafe_take(wanted oid, kind "char", after bigint, most bigint)
        RETURNS SETOF %1$I.bulksafe_buffer
        LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, pg_temp
        SET enable_seqscan = off
        SET plan_cache_mode = force_generic_plan
        AS $body$
        DECLARE
            waiting CONSTANT text := COALESCE(current_setting('bulksafe.waiting', true), '');
            tickets tid[];
            closed tid[];
            places tid[];
        BEGIN
            IF waiting = '' OR starts_with(waiting, 'all ') THEN
                IF most IS NOT NULL THEN
                    RETURN;
                END IF;
                -- plpgsql keeps the plan.
                RETURN QUERY
                    DELETE FROM %1$I.bulksafe_buffer AS b
                    WHERE b.xid = pg_current_xact_id() AND b.seq > after AND b.source = wanted::regclass AND b.operation = kind
                    RETURNING b.*;
                RETURN;
            END IF;
            tickets := string_to_array(waiting, ' ');
            IF most < (
                SELECT sum(cardinality(t.rows)) FROM %1$I.bulksafe_ticket AS t
                WHERE t.ctid = ANY (tickets) AND t.xid = pg_current_xact_id()
            ) THEN
                RETURN;
            END IF;
            WITH gone AS (
                DELETE FROM %1$I.bulksafe_ticket AS t
                WHERE t.ctid = ANY (tickets) AND t.xid = pg_current_xact_id() AND NOT t.staged
                  AND t.source = wanted::regclass AND t.operation = kind
                RETURNING t.ctid AS place, t.rows
            )
            SELECT array_agg(DISTINCT g.place), array_agg(r.place) INTO closed, places
            FROM gone AS g, unnest(g.rows) AS r (place);
            PERFORM set_config(
                'bulksafe.waiting',
                array_to_string(ARRAY(SELECT o.place FROM unnest(tickets) AS o (place) WHERE o.place <> ALL (COALESCE(closed, '{}'))), ' '),
                true
            );
            RETURN QUERY
                DELETE FROM %1$I.bulksafe_buffer AS b
                WHERE b.ctid = ANY (places) AND b.xid IS NOT DISTINCT FROM pg_current_xact_id()
                RETURNING b.*;
        END
        $body$
    $ddl$, home);

    -- From here on, the triggers of tables with receivers keep the rows that a statement would write (mode "collect"), or
    -- that it writes (mode "record"). The ticket refuses the commit as long as any of them is not written. Returns a
    -- number below those of the rows.
    EXECUTE format($ddl$
        CREATE FUNCTION %1$I.bulksafe_collect(mode text) RETURNS bigint
        LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, pg_temp
        SET enable_seqscan = off
        SET plan_cache_mode = force_generic_plan
        AS $body$
        DECLARE
            tickets CONSTANT text[] := string_to_array(current_setting('bulksafe.tickets', true), ' ');
            ticket tid;
        BEGIN
            IF current_setting('bulksafe.staged', true) = 'all' THEN
                SELECT t.ctid INTO ticket
                FROM %1$I.bulksafe_ticket AS t
                WHERE t.ctid = ANY (tickets::tid[]) AND t.xid = pg_current_xact_id() AND t.staged
                LIMIT 1;
            END IF;
            IF ticket IS NULL THEN
                ticket := %1$I.bulksafe_open(NULL, NULL, NULL, true);
                PERFORM set_config('bulksafe.tickets', array_to_string(tickets || ticket::text, ' '), true);
            END IF;
            PERFORM set_config('bulksafe.stage', concat_ws(' ', mode, pg_current_xact_id(), ticket), true);
            RETURN nextval(%2$L::regclass);
        END
        $body$
    $ddl$, home, format('%I.bulksafe_staged_n_seq', home));

    -- Keeps rows that the session has recorded, and whose recording it has rolled back. Returns their numbers.
    EXECUTE format($ddl$
        CREATE FUNCTION %1$I.bulksafe_stage(sources oid[], operations text[], olds text[], news text[])
        RETURNS SETOF bigint
        LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, pg_temp
        AS $body$
        DECLARE
            known text := COALESCE(current_setting('bulksafe.staged', true), '');
            numbers bigint[];
            places text;
        BEGIN
            PERFORM %1$I.bulksafe_collect(''), set_config('bulksafe.stage', '', true);
            WITH added AS (
                INSERT INTO %1$I.bulksafe_staged AS s (source, operation, old, new)
                SELECT g.source::regclass, g.operation::"char", g.old, g.new
                FROM unnest(sources, operations, olds, news) WITH ORDINALITY AS g (source, operation, old, new, number)
                ORDER BY g.number
                RETURNING s.n, s.ctid AS place
            )
            SELECT array_agg(a.n ORDER BY a.n), string_agg(a.place::text, ' ') INTO numbers, places FROM added AS a;
            known := CASE WHEN known = 'all' OR length(known) + length(places) > 4000 THEN 'all'
                          ELSE concat_ws(' ', NULLIF(known, ''), places) END;
            PERFORM set_config('bulksafe.staged', known, true);
            RETURN QUERY SELECT unnest(numbers);
        END
        $body$
    $ddl$, home);

    -- Closes the tickets of staged rows, if none of these is left.
    EXECUTE format($ddl$
        CREATE FUNCTION %1$I.bulksafe_close() RETURNS void
        LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, pg_temp
        SET enable_seqscan = off
        SET plan_cache_mode = force_generic_plan
        AS $body$
        DECLARE
            places CONSTANT tid[] := string_to_array(current_setting('bulksafe.staged', true), ' ');
            tickets CONSTANT tid[] := string_to_array(current_setting('bulksafe.tickets', true), ' ');
        BEGIN
            IF NOT EXISTS (
                SELECT FROM %1$I.bulksafe_staged AS s
                WHERE s.ctid = ANY (places) AND s.xid IS NOT DISTINCT FROM pg_current_xact_id()
            ) THEN
                DELETE FROM %1$I.bulksafe_ticket AS t
                WHERE t.ctid = ANY (tickets) AND t.xid = pg_current_xact_id() AND t.staged;
                PERFORM set_config('bulksafe.tickets', '', true), set_config('bulksafe.staged', '', true);
            END IF;
        END
        $body$
    $ddl$, home);

    -- Ends that, and says which tables the rows are of.
    EXECUTE format($ddl$
        CREATE FUNCTION %1$I.bulksafe_collected(after bigint) RETURNS TABLE (source oid, root oid, operation "char", last bigint)
        LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, pg_temp
        SET enable_seqscan = off
        SET plan_cache_mode = force_generic_plan
        AS $body$
        DECLARE
            known CONSTANT text := COALESCE(current_setting('bulksafe.staged', true), '');
        BEGIN
            PERFORM set_config('bulksafe.stage', '', true);
            IF known <> 'all' THEN
                RETURN QUERY
                    SELECT s.source::oid, COALESCE(pg_partition_root(s.source), s.source)::oid, s.operation, max(s.n)
                    FROM %1$I.bulksafe_staged AS s
                    WHERE s.ctid = ANY (string_to_array(known, ' ')::tid[]) AND s.n + 0 > after
                      AND s.xid IS NOT DISTINCT FROM pg_current_xact_id()
                    GROUP BY s.source, s.operation;
                IF NOT FOUND THEN
                    PERFORM %1$I.bulksafe_close();
                END IF;
                RETURN;
            END IF;
            RETURN QUERY
                SELECT s.source::oid, COALESCE(pg_partition_root(s.source), s.source)::oid, s.operation, max(s.n)
                FROM %1$I.bulksafe_staged AS s
                WHERE s.n > after AND s.xid = pg_current_xact_id()
                GROUP BY s.source, s.operation;
        END
        $body$
    $ddl$, home);

    EXECUTE format($ddl$
        CREATE FUNCTION %1$I.bulksafe_staged_rows(wanted oid, after bigint, last bigint)
        RETURNS SETOF %1$I.bulksafe_staged
        LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, pg_temp
        SET enable_seqscan = off
        SET plan_cache_mode = force_generic_plan
        AS $body$
        DECLARE
            known CONSTANT text := COALESCE(current_setting('bulksafe.staged', true), '');
        BEGIN
            IF known <> 'all' THEN
                RETURN QUERY
                    SELECT s.*
                    FROM %1$I.bulksafe_staged AS s
                    WHERE s.ctid = ANY (string_to_array(known, ' ')::tid[])
                      AND s.n + 0 > after AND s.n + 0 <= last AND s.source = wanted::regclass
                      AND s.xid IS NOT DISTINCT FROM pg_current_xact_id();
                RETURN;
            END IF;
            RETURN QUERY
                SELECT s.*
                FROM %1$I.bulksafe_staged AS s
                WHERE s.n > after AND s.n <= last AND s.xid = pg_current_xact_id() AND s.source = wanted::regclass;
        END
        $body$
    $ddl$, home);

    -- The rows that are about to be written, or that are not to be written any more.
    EXECUTE format($ddl$
        CREATE FUNCTION %1$I.bulksafe_unstage(numbers bigint[]) RETURNS SETOF %1$I.bulksafe_staged
        LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, pg_temp
        SET enable_seqscan = off
        SET plan_cache_mode = force_generic_plan
        AS $body$
        DECLARE
            known CONSTANT text := COALESCE(current_setting('bulksafe.staged', true), '');
            places tid[];
        BEGIN
            IF known = 'all' THEN
                -- plpgsql keeps a plan that was made while the table was empty, which would scan it for each row.
                RETURN QUERY
                    DELETE FROM %1$I.bulksafe_staged AS s
                    WHERE s.n = ANY (numbers) AND s.xid = pg_current_xact_id()
                    RETURNING s.*;
                RETURN;
            END IF;
            places := string_to_array(known, ' ');
            RETURN QUERY
                DELETE FROM %1$I.bulksafe_staged AS s
                WHERE s.ctid = ANY (places) AND s.xid IS NOT DISTINCT FROM pg_current_xact_id() AND s.n + 0 = ANY (numbers)
                RETURNING s.*;
            PERFORM %1$I.bulksafe_close();
        END
        $body$
    $ddl$, home);

    EXECUTE format($ddl$
        CREATE FUNCTION %1$I.bulksafe_prefix() RETURNS text
        LANGUAGE sql STABLE SECURITY DEFINER
        SET search_path = pg_catalog, pg_temp
        AS $body$ SELECT left(i.id::text, 8) FROM %1$I.bulksafe_outbox_identity AS i $body$
    $ddl$, home);

    EXECUTE format($ddl$
        CREATE FUNCTION %1$I.bulksafe_ticket_open() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, pg_temp
        SET enable_seqscan = off
        SET plan_cache_mode = force_generic_plan
        AS $body$
        DECLARE
            places tid[] := NEW.rows;
            waiting record;
            missed record;
            rows bigint;
            names text;
        BEGIN
            -- Later writes open tickets of their own.
            IF COALESCE(current_setting('bulksafe.deferred', true), '') <> '' THEN
                PERFORM set_config('bulksafe.deferred', '', true);
            END IF;
            DELETE FROM %1$I.bulksafe_ticket AS t WHERE t.ctid = NEW.ctid AND t.xid = NEW.xid;
            IF NOT FOUND THEN
                RETURN NULL;
            END IF;
            IF NEW.staged THEN
                SELECT s.source, n.nspname, c.relname INTO waiting
                FROM %1$I.bulksafe_staged AS s
                LEFT JOIN pg_class AS c ON c.oid = s.source
                LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
                WHERE s.xid = NEW.xid
                LIMIT 1;
                IF NOT FOUND THEN
                    RETURN NULL;
                END IF;
                RAISE EXCEPTION USING
                    ERRCODE = 'integrity_constraint_violation',
                    MESSAGE = format('a write to %%s was collected for its critical receivers and never made', waiting.source),
                    HINT = 'The program that wrote has caught an error of its own write and gone on to the commit. '
                           'Put what may fail into transaction.atomic().',
                    SCHEMA = waiting.nspname,
                    TABLE = waiting.relname,
                    CONSTRAINT = 'bulksafe_ticket_open';
            END IF;
            IF places IS NULL THEN
                SELECT array_agg(b.ctid) INTO places FROM %1$I.bulksafe_buffer AS b WHERE b.xid = NEW.xid;
            END IF;
            IF NOT EXISTS (
                SELECT FROM %1$I.bulksafe_buffer AS b WHERE b.ctid = ANY (places) AND b.xid IS NOT DISTINCT FROM NEW.xid
            ) THEN
                RETURN NULL;
            END IF;

            SELECT b.source, b.operation, n.nspname, c.relname INTO waiting
            FROM %1$I.bulksafe_buffer AS b
            LEFT JOIN pg_class AS c ON c.oid = b.source
            LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE b.ctid = ANY (places) AND b.xid IS NOT DISTINCT FROM NEW.xid AND b.refused
            ORDER BY b.seq
            LIMIT 1;
            IF FOUND THEN
                SELECT count(*) INTO rows
                FROM %1$I.bulksafe_buffer AS b
                WHERE b.xid = NEW.xid AND (b.source, b.operation) = (waiting.source, waiting.operation);
                SELECT string_agg(r.receiver, ', ' ORDER BY r.receiver) INTO names
                FROM %1$I.bulksafe_receiver AS r
                WHERE r.source = waiting.source AND r.operation = waiting.operation AND r.otherwise = 'refuse';
                RAISE EXCEPTION USING
                    ERRCODE = 'integrity_constraint_violation',
                    MESSAGE = format(
                        'critical receivers have not run for %%s of %%s (%%s): %%s',
                        CASE waiting.operation WHEN 'I' THEN 'an INSERT' WHEN 'U' THEN 'an UPDATE' ELSE 'a DELETE' END,
                        waiting.source,
                        CASE rows WHEN 1 THEN '1 row' ELSE concat(rows, ' rows') END,
                        COALESCE(names, 'run “manage.py migrate” for their names')
                    ),
                    DETAIL = 'They run in Django, in the transaction that writes; this one was written past it, so '
                             'the commit is refused.',
                    HINT = 'Write through Django, in transaction.atomic(); or declare the receivers with '
                           'otherwise="after_commit", and the listener will run them. For processes of an older '
                           'release, list the model in BULKSAFE["ROLLOUT"] and run “manage.py bulksafe switch-off”.',
                    SCHEMA = waiting.nspname,
                    TABLE = waiting.relname,
                    CONSTRAINT = 'bulksafe_ticket_open';
            END IF;

            -- Receivers with otherwise="observe". A write for which there are no others ends here.
            FOR missed IN
                SELECT b.*, substr(m.mark, length('observe:') + 1) AS receiver
                FROM %1$I.bulksafe_buffer AS b
                CROSS JOIN LATERAL unnest(b.matched) AS m (mark)
                WHERE b.ctid = ANY (places) AND b.xid IS NOT DISTINCT FROM NEW.xid AND starts_with(m.mark, 'observe:')
                ORDER BY b.seq
            LOOP
                CONTINUE WHEN current_setting('bulksafe.recorded_' || md5(missed.receiver), true) = 'full';
                PERFORM %1$I.bulksafe_record(
                    missed.receiver, 'receiver', missed.source, missed.operation, missed.key, missed.old, missed.new,
                    missed.context
                );
            END LOOP;

            WITH gone AS (
                DELETE FROM %1$I.bulksafe_buffer AS b
                WHERE b.ctid = ANY (places) AND b.xid IS NOT DISTINCT FROM NEW.xid
                RETURNING b.*
            )
            INSERT INTO %1$I.bulksafe_outbox
                (slot, seq, bucket, at, source, part, operation, depth, key, old, new, matched, context)
            SELECT (SELECT last_value FROM %1$I.bulksafe_outbox_slot), g.seq,
                   (hashtextextended(g.key, 0) & 15)::smallint, g.at, g.source, g.part, g.operation, g.depth, g.key,
                   g.old, g.new,
                   ARRAY['otherwise'] || ARRAY(
                       SELECT m.mark FROM unnest(g.matched) WITH ORDINALITY AS m (mark, place)
                       WHERE NOT starts_with(m.mark, 'observe') ORDER BY m.place
                   ),
                   g.context
            FROM gone AS g
            WHERE (g.matched @> ARRAY['observed']) IS NOT TRUE;
            IF FOUND AND NOT pg_try_advisory_xact_lock_shared(1651862123, 0) THEN
                PERFORM pg_notify('bulksafe', '');
            END IF;
            RETURN NULL;
        END
        $body$
    $ddl$, home);
    EXECUTE format($ddl$
        CREATE CONSTRAINT TRIGGER bulksafe_ticket_open
        AFTER INSERT ON %1$I.bulksafe_ticket
        DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW
        EXECUTE FUNCTION %1$I.bulksafe_ticket_open()
    $ddl$, home);

    PERFORM pg_catalog.set_config('search_path', caller_path, true);
END
$bulksafe$;
