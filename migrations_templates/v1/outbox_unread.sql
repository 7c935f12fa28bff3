-- Refuses to drop events that a queue has not delivered, or that a receiver has failed on.

DO $bulksafe$
DECLARE
    undelivered bigint;
    parked bigint;
    dead bigint;
BEGIN
    IF to_regclass('bulksafe_outbox') IS NULL THEN
        RETURN;
    END IF;
    -- Transactions that have written events and not ended are waited for: theirs count, too.
    LOCK TABLE bulksafe_outbox, bulksafe_cursor, bulksafe_parked IN SHARE MODE;
    SELECT count(*) INTO undelivered
    FROM bulksafe_outbox AS o
    WHERE EXISTS (
        SELECT FROM bulksafe_cursor AS c
        WHERE c.bucket = o.bucket
          AND NOT (
              pg_visible_in_snapshot(o.xid, c.lower)
              OR (COALESCE(o.seq <= c.position, false) AND pg_visible_in_snapshot(o.xid, c.upper))
              OR o.seq = ANY (c.skip)
          )
    );
    SELECT count(*) FILTER (WHERE p.state <> 'dead'), count(*) FILTER (WHERE p.state = 'dead') INTO parked, dead
    FROM bulksafe_parked AS p;
    IF undelivered + parked + dead > 0 THEN
        RAISE EXCEPTION USING
            ERRCODE = 'object_in_use',
            MESSAGE = format(
                'bulksafe''s tables hold undelivered events (%s), parked events (%s) and dead letters (%s), which would be lost',
                undelivered, parked, dead
            ),
            HINT = 'Deliver them with “manage.py bulksafe listen --once” and “manage.py bulksafe retry --all”, or give them '
                   'up with “manage.py bulksafe discard --undelivered”.';
    END IF;
END
$bulksafe$;
