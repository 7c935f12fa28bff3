-- bulksafe's own tables: the outbox and what its readers need. A second run changes nothing.
--
-- The outbox is append-only. Its three slots take turns: one is written to, one is being read to its end,
-- one is empty. Slots are emptied with TRUNCATE, so that nothing is left to vacuum.

DO $bulksafe$
DECLARE
    caller_path CONSTANT text := pg_catalog.current_setting('search_path');
    home name := (
:home
    );
    is_there CONSTANT boolean := home IS NOT NULL;
    stranger record;
BEGIN
    home := COALESCE(home, current_schema());
    -- Names without a schema are those of this one, not of the temporary one.
    PERFORM pg_catalog.set_config('search_path', format('%I, pg_temp', home), true);
:strangers
    IF is_there THEN
        PERFORM pg_catalog.set_config('search_path', caller_path, true);
        RETURN;
    END IF;

    -- CACHE 1: the order of the numbers is the order of the changes of a row.
    CREATE SEQUENCE bulksafe_outbox_seq AS bigint CACHE 1;
    -- Which slot is written to. A sequence, since every transaction sees its present value, also one with
    -- an old snapshot.
    CREATE SEQUENCE bulksafe_outbox_slot AS smallint MINVALUE 0 MAXVALUE 2 START 0 CYCLE;

    CREATE TABLE bulksafe_outbox (
        slot smallint NOT NULL,
        seq bigint NOT NULL DEFAULT nextval('bulksafe_outbox_seq'),
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        bucket smallint NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        source regclass NOT NULL,
        part regclass,
        operation "char" NOT NULL,
        depth smallint NOT NULL,
        key text NOT NULL,
        old jsonb,
        new jsonb,
        matched text[],
        context jsonb
    ) PARTITION BY LIST (slot);
    CREATE TABLE bulksafe_outbox_0 PARTITION OF bulksafe_outbox FOR VALUES IN (0);
    CREATE TABLE bulksafe_outbox_1 PARTITION OF bulksafe_outbox FOR VALUES IN (1);
    CREATE TABLE bulksafe_outbox_2 PARTITION OF bulksafe_outbox FOR VALUES IN (2);

    -- For reading a bucket in order, and as the replica identity: without one, a publication FOR ALL TABLES makes
    -- PostgreSQL refuse to rename a column in waiting events, or to renumber restored ones. An index for each slot,
    -- since a unique index of the whole table would need the slot as a third column, at twice the size.
    CREATE UNIQUE INDEX bulksafe_outbox_0_bucket_seq ON bulksafe_outbox_0 (bucket, seq);
    CREATE UNIQUE INDEX bulksafe_outbox_1_bucket_seq ON bulksafe_outbox_1 (bucket, seq);
    CREATE UNIQUE INDEX bulksafe_outbox_2_bucket_seq ON bulksafe_outbox_2 (bucket, seq);
    ALTER TABLE bulksafe_outbox_0 REPLICA IDENTITY USING INDEX bulksafe_outbox_0_bucket_seq;
    ALTER TABLE bulksafe_outbox_1 REPLICA IDENTITY USING INDEX bulksafe_outbox_1_bucket_seq;
    ALTER TABLE bulksafe_outbox_2 REPLICA IDENTITY USING INDEX bulksafe_outbox_2_bucket_seq;

    -- Nothing is ever deleted or updated there: a vacuum has nothing to do but freeze.
    ALTER TABLE bulksafe_outbox_0 SET (autovacuum_vacuum_insert_scale_factor = 1, autovacuum_vacuum_insert_threshold = 10000000);
    ALTER TABLE bulksafe_outbox_1 SET (autovacuum_vacuum_insert_scale_factor = 1, autovacuum_vacuum_insert_threshold = 10000000);
    ALTER TABLE bulksafe_outbox_2 SET (autovacuum_vacuum_insert_scale_factor = 1, autovacuum_vacuum_insert_threshold = 10000000);

    -- How far a queue has come, one row for each bucket of keys. Locking the row is the right to go on.
    CREATE TABLE bulksafe_cursor (
        queue text NOT NULL,
        atomic boolean NOT NULL,
        bucket smallint NOT NULL,
        -- All that this snapshot sees has been dealt with …
        lower pg_snapshot NOT NULL,
        -- … and what its unseen transactions from xmax on wrote has a higher number than this; for those
        -- that were running, the number is in "running".
        floor bigint NOT NULL,
        running jsonb NOT NULL DEFAULT '{}',
        -- The window that is being worked off, up to "position".
        upper pg_snapshot,
        upper_floor bigint,
        position bigint,
        -- What was dealt with ahead of its turn.
        skip bigint[] NOT NULL DEFAULT '{}',
        -- How many batches were finished. See bulksafe_started.
        batch bigint NOT NULL DEFAULT 0,
        served_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (queue, atomic, bucket)
    ) WITH (fillfactor = 50);

    -- The last batch of each cursor that was started. It is stored before the first call, by a connection of its
    -- own, since the cursor's row is locked: a higher number here than there means that the process died.
    CREATE TABLE bulksafe_started (
        queue text NOT NULL,
        atomic boolean NOT NULL,
        bucket smallint NOT NULL,
        batch bigint NOT NULL,
        -- The call that the process died in, if its supervisor could determine it.
        suspect_receiver text,
        suspect_seq bigint,
        suspect_error text,
        PRIMARY KEY (queue, atomic, bucket)
    ) WITH (fillfactor = 50);

    -- Calls that are made one by one: failed calls, calls that wait behind them, calls whose process died or
    -- that took too long for a batch, and all calls outside a transaction.
    CREATE SEQUENCE bulksafe_call_seq AS bigint;
    CREATE TABLE bulksafe_parked (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        queue text NOT NULL,
        atomic boolean NOT NULL,
        bucket smallint NOT NULL,
        -- A name, or * for every receiver of the table: the code that read the event had none.
        receiver text NOT NULL,
        seq bigint NOT NULL,
        at timestamptz NOT NULL,
        source regclass NOT NULL,
        operation "char" NOT NULL,
        key text NOT NULL,
        old jsonb,
        new jsonb,
        matched text[],
        context jsonb,
        -- Events with the same number make one call: links of one instance, or a batch. The first one leads.
        call bigint,
        leads boolean NOT NULL DEFAULT true,
        state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'dead')),
        -- Whether later events of the row wait for this one.
        blocks boolean NOT NULL DEFAULT true,
        -- Counted when a call starts, so that one which ends its process is counted, too.
        attempts integer NOT NULL DEFAULT 0,
        -- When it may be called; infinity for one that waits behind another of its row and receiver.
        due timestamptz NOT NULL DEFAULT now(),
        -- Who holds the lease makes the call; a higher epoch takes it away.
        leased_until timestamptz,
        epoch bigint NOT NULL DEFAULT 0,
        error text,
        traceback text,
        parked_at timestamptz NOT NULL DEFAULT now(),
        attempted_at timestamptz
    );
    CREATE INDEX bulksafe_parked_row ON bulksafe_parked (queue, atomic, bucket, source, key, id);
    CREATE INDEX bulksafe_parked_due ON bulksafe_parked (queue, due, id) WHERE state = 'waiting' AND leads;
    CREATE INDEX bulksafe_parked_call ON bulksafe_parked (queue, call) WHERE call IS NOT NULL;

    -- The workers of all listeners, and the calls that take long. Each supervisor keeps its own rows up to date.
    CREATE UNLOGGED TABLE bulksafe_worker (
        host text NOT NULL,
        pid integer NOT NULL,
        listener integer NOT NULL,
        queue text NOT NULL,
        started_at timestamptz NOT NULL,
        seen_at timestamptz NOT NULL,
        receiver text,
        source regclass,
        key text,
        call_since timestamptz,
        PRIMARY KEY (host, pid)
    );

    -- Distinguishes the event ids of two databases.
    CREATE TABLE bulksafe_outbox_identity (id uuid PRIMARY KEY DEFAULT gen_random_uuid());
    INSERT INTO bulksafe_outbox_identity DEFAULT VALUES;

    PERFORM pg_catalog.set_config('search_path', caller_path, true);
END
$bulksafe$;
