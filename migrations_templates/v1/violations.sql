-- The violations of rules with mode="observe", and the writes that in-transaction receivers with otherwise="observe" have
-- missed. A second run changes nothing.
--
-- Each invariant has as many numbers as the limit says, and each number holds one record: the table cannot outgrow the
-- limit, for every writer and isolation level. To keep writers from waiting for each other's numbers, the numbers
-- of an invariant are divided into lanes. A transaction fills only a lane whose advisory lock it gets without waiting, and
-- keeps the lock until it ends: no other open transaction has a record there, so no insertion waits for one.

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
        WHERE n.nspname = home AND c.relname = 'bulksafe_violation'
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

    -- How many records each invariant may have: "migrate" sets it to BULKSAFE["MAX_OBSERVED"]. A sequence, since every
    -- transaction sees its present value, also one with an old snapshot.
    CREATE SEQUENCE bulksafe_violation_limit AS integer START 1000;

    CREATE TABLE bulksafe_violation (
        -- The label of the rule, or the name of the receiver.
        invariant text NOT NULL,
        number integer NOT NULL CHECK (number > 0),
        kind text NOT NULL CHECK (kind IN ('rule', 'receiver')),
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        source regclass NOT NULL,
        -- T: the row was there when the table was truncated.
        operation "char" NOT NULL,
        key text NOT NULL,
        old jsonb,
        new jsonb,
        login name NOT NULL,
        role name NOT NULL,
        context jsonb,
        query text,
        PRIMARY KEY (invariant, number)
    );

    -- A row for a record. Without the large values of a large row, so that the size of the table has a limit, too.
    EXECUTE format($ddl$
        CREATE FUNCTION %1$I.bulksafe_record_image(image jsonb) RETURNS jsonb
        LANGUAGE sql STABLE
        SET search_path = pg_catalog, pg_temp
        AS $body$
            SELECT CASE
                WHEN octet_length(image::text) <= 100000 THEN image
                ELSE (
                    SELECT jsonb_object_agg(
                        e.key,
                        CASE WHEN length(e.value::text) <= 1000 THEN e.value
                             ELSE to_jsonb(left(e.value #>> '{}', 1000) || '…') END
                    )
                    FROM jsonb_each(image) AS e
                )
            END
        $body$
    $ddl$, home);

    -- Stores the record under the first free number of the lane of "entry.number", and returns the number; NULL if the
    -- lane is full.
    EXECUTE format($ddl$
        CREATE FUNCTION %1$I.bulksafe_record_in_lane(entry %1$I.bulksafe_violation, lanes integer, most integer)
        RETURNS integer
        LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, pg_temp
        AS $body$
        BEGIN
            WHILE entry.number <= most LOOP
                INSERT INTO %1$I.bulksafe_violation VALUES (entry.*) ON CONFLICT DO NOTHING;
                IF FOUND THEN
                    RETURN entry.number;
                END IF;
                entry.number := entry.number + lanes;
            END LOOP;
            RETURN NULL;
        END
        $body$
    $ddl$, home);

    -- Records a violation. Returns false if there is no room for it, and then for no other of this transaction either.
    EXECUTE format($ddl$
        CREATE FUNCTION %1$I.bulksafe_record(
            label text, kind text, source regclass, operation "char", key text, old jsonb, new jsonb, context jsonb
        ) RETURNS boolean
        LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, pg_temp
        AS $body$
        DECLARE
            lanes CONSTANT integer := 8;
            most CONSTANT integer := (SELECT l.last_value FROM %1$I.bulksafe_violation_limit AS l);
            -- The number of the last record of this transaction, or "full". A rollback to a savepoint takes it back. Any
            -- role may set it: a wrong number only starts the search elsewhere.
            setting CONSTANT text := 'bulksafe.recorded_' || md5(label);
            last CONSTANT text := current_setting(setting, true);
            first integer;
            stored integer;
            entry %1$I.bulksafe_violation;
        BEGIN
            IF last = 'full' THEN
                RETURN false;
            END IF;
            entry := ROW(
                label, 0, kind, clock_timestamp(), source, operation, left(key, 1000),
                %1$I.bulksafe_record_image(old), %1$I.bulksafe_record_image(new),
                session_user, :caller,
                CASE WHEN octet_length(context::text) <= 65536 THEN context END,
                left(current_query(), 200)
            );
            first := CASE WHEN last ~ '^[1-9][0-9]{0,8}$' THEN last::integer ELSE 1 END;
            FOR lane IN (first - 1) %% lanes + 1 .. LEAST(lanes, most) LOOP
                CONTINUE WHEN NOT pg_try_advisory_xact_lock(hashtextextended(label, 1651862123 + lane));
                entry.number := CASE WHEN lane = (first - 1) %% lanes + 1 THEN first ELSE lane END;
                IF current_setting('transaction_isolation') = 'read committed' THEN
                    stored := %1$I.bulksafe_record_in_lane(entry, lanes, most);
                ELSE
                    -- A record that the transaction's snapshot does not see is a serialization failure to ON CONFLICT. Here
                    -- it only means that the number is taken. A transaction that is bound to fail fails at its commit.
                    BEGIN
                        stored := %1$I.bulksafe_record_in_lane(entry, lanes, most);
                    EXCEPTION WHEN serialization_failure THEN
                        stored := NULL;
                    END;
                END IF;
                IF stored IS NOT NULL THEN
                    PERFORM set_config(setting, stored::text, true);
                    RETURN true;
                END IF;
            END LOOP;
            PERFORM set_config(setting, 'full', true);
            RETURN false;
        END
        $body$
    $ddl$, home);

    PERFORM pg_catalog.set_config('search_path', caller_path, true);
END
$bulksafe$;
