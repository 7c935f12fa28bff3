-- Events for rows that are there already, each for one receiver.

-- name: replay_settings
-- Images look as those of a capture, whatever the session's settings. A policy of row-level security that hides rows
-- is an error rather than a gap.
SELECT set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO', true),
       set_config('intervalstyle', 'postgres', true), set_config('extra_float_digits', '1', true),
       set_config('bytea_output', 'hex', true), set_config('row_security', 'off', true)

-- name: replay
-- The next rows in the order of their keys: how many, how many events they became, and the last one's key.
-- A row is locked before its event gets a number, until the commit. So an earlier change of the row is in the image,
-- and a later one has a higher number: nothing overtakes. The condition stands beside FOR SHARE, which evaluates it
-- again for a row that changed while the lock was waited for.
WITH chosen AS MATERIALIZED (
    SELECT *
    FROM ({rows}) AS r ({names})
    WHERE {after}
    ORDER BY {names}
    LIMIT %(limit)s
),
written AS (
    INSERT INTO bulksafe_outbox (slot, bucket, source, operation, depth, key, old, new, matched, context)
    SELECT (SELECT last_value FROM bulksafe_outbox_slot), (hashtextextended(s.key, 0) & 15)::smallint,
           to_regclass(%(table)s), %(operation)s::"char", 1, s.key,
           CASE WHEN %(operation)s::text = 'U' THEN s.image END, s.image, %(matched)s::text[], %(context)s::jsonb
    FROM (
        SELECT {key} AS key, {image} AS image
        FROM {source}
        JOIN chosen AS c ON ({columns}) = ({chosen})
        WHERE {condition}
        ORDER BY {columns}
        FOR SHARE OF {aliases} {wait}
    ) AS s
    RETURNING seq
)
SELECT (SELECT count(*) FROM chosen),
       (SELECT count(*) FROM written),
       (SELECT ARRAY[{texts}] FROM chosen AS c ORDER BY {descending} LIMIT 1)

-- name: replay_count
-- How many events it would be.
SELECT count(*)
FROM {source}
JOIN ({rows}) AS r ({names}) ON ({columns}) = ({names})
WHERE {after} AND {condition}

-- name: replay_estimate
EXPLAIN (FORMAT JSON)
SELECT FROM ({rows}) AS r ({names})
WHERE {after}

-- name: wake
-- A listener that sleeps holds this lock exclusively; one that is awake needs no NOTIFY.
SELECT CASE WHEN NOT pg_try_advisory_xact_lock_shared(1651862123, 0) THEN pg_notify('bulksafe', '') END
