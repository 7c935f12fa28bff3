-- bulksafe's own tables: the outbox and what its readers need. A second run changes nothing.
--
-- The outbox is append-only. Its three slots take turns: one is written to, one is being read to its end,
-- one is empty. Slots are emptied with TRUNCATE, so that nothing is left to vacuum.

DO $bulksafe$
BEGIN
    IF pg_catalog.to_regclass('bulksafe_outbox') IS NOT NULL THEN
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
        -- The lease of a worker that runs receivers outside a transaction.
        epoch bigint NOT NULL DEFAULT 0,
        leased_until timestamptz,
        served_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (queue, atomic, bucket)
    ) WITH (fillfactor = 50);

    -- Events that a receiver failed on, and those of the same row that wait behind them.
    CREATE TABLE bulksafe_parked (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        queue text NOT NULL,
        atomic boolean NOT NULL,
        bucket smallint NOT NULL,
        -- A name, or * for all that the table has: the code that read the event knew no such table.
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
        -- Orphaned: the code that looked at it last knows no such receiver, or no such table.
        state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'dead', 'orphaned')),
        blocks boolean NOT NULL DEFAULT true,
        attempts integer NOT NULL DEFAULT 0,
        due timestamptz NOT NULL DEFAULT now(),
        error text,
        traceback text,
        parked_at timestamptz NOT NULL DEFAULT now(),
        attempted_at timestamptz
    );
    CREATE INDEX bulksafe_parked_order ON bulksafe_parked (queue, atomic, bucket, receiver, source, key, id);

    -- Tells apart the event ids of two databases.
    CREATE TABLE bulksafe_outbox_identity (id uuid PRIMARY KEY DEFAULT gen_random_uuid());
    INSERT INTO bulksafe_outbox_identity DEFAULT VALUES;
END
$bulksafe$;
