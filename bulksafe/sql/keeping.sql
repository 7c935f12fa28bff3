-- Keeping the outbox small, and saying how it is.

-- name: slots
-- How big each slot is, and which one is written to.
SELECT n.slot, pg_relation_size(to_regclass('bulksafe_outbox_' || n.slot)), n.slot = s.last_value
FROM generate_series(0, 2) AS n (slot)
CROSS JOIN bulksafe_outbox_slot AS s

-- name: rotate
-- From now on events go to the next slot.
SELECT setval('bulksafe_outbox_slot', (SELECT mod(last_value + 1, 3) FROM bulksafe_outbox_slot))

-- name: rotation_lock
-- One keeper at a time, until the end of the transaction. A row lock, which needs a privilege on the table: any role
-- could hold an advisory lock, and the outbox would grow. A dump does not conflict with it.
SELECT true
FROM bulksafe_outbox_identity
FOR UPDATE SKIP LOCKED

-- name: is_read
-- Whether every cursor has passed every event of a slot. The slot is locked: no transaction that wrote to it
-- is running, so all its events are there to be seen.
SELECT NOT EXISTS (
    SELECT FROM bulksafe_cursor AS c
    WHERE (
            c.upper IS NOT NULL
            AND EXISTS (
                SELECT FROM {slot} AS o
                WHERE o.bucket = c.bucket
                  AND NOT pg_visible_in_snapshot(o.xid, c.lower)
                  AND NOT (COALESCE(o.seq <= c.position, false) AND pg_visible_in_snapshot(o.xid, c.upper))
            )
        )
       OR EXISTS (
            SELECT FROM {slot} AS o
            WHERE o.bucket = c.bucket AND o.seq > c.floor AND o.xid >= pg_snapshot_xmax(c.lower)
        )
       OR EXISTS (
            SELECT FROM (
                SELECT r.key::xid8 AS xid, r.value::bigint AS floor
                FROM jsonb_each_text(c.running) AS r
                OFFSET 0
            ) AS running
            WHERE EXISTS (
                SELECT FROM {slot} AS o
                WHERE o.bucket = c.bucket AND o.seq > running.floor AND o.xid = running.xid
            )
        )
)

-- name: unread
-- Part of the next one and of longest_due: the events that a cursor has not passed, and that its lane has receivers
-- for, if this code has it. The cursor passes the others from time to time.
e.bucket = c.bucket
      AND (l.sources IS NULL OR e.source = ANY (l.sources))
      AND e.seq > LEAST(
          COALESCE(c.position, c.floor),
          (SELECT min(r.value::bigint) FROM jsonb_each_text(c.running) AS r)
      )
      AND NOT (
          pg_visible_in_snapshot(e.xid, c.lower)
          OR (c.position IS NOT NULL AND e.seq <= c.position AND pg_visible_in_snapshot(e.xid, c.upper))
          OR e.seq = ANY (c.skip)
      )

-- name: lag
-- What waits, by queue: events that are visible and not dealt with, the age of the oldest, and the parked calls. One
-- statement, and so one snapshot: between two, an event that is parked would be missing from both counts.
-- Ages by the clock of the server, which all times here are by.
SELECT queue, atomic, count(o.seq),
       date_part('epoch', clock_timestamp() - min(o.at)), date_part('epoch', clock_timestamp() - max(c.served_at)),
       COALESCE(p.waiting, 0), COALESCE(p.dead, 0)
FROM bulksafe_cursor AS c
LEFT JOIN {query:lanes_known} AS l USING (queue, atomic)
LEFT JOIN (
    SELECT queue, atomic,
           count(*) FILTER (WHERE state = 'waiting') AS waiting,
           count(*) FILTER (WHERE state = 'dead') AS dead
    FROM bulksafe_parked
    GROUP BY queue, atomic
) AS p USING (queue, atomic)
LEFT JOIN LATERAL (
    SELECT e.seq, e.at
    FROM bulksafe_outbox AS e
    WHERE {query:unread}
) AS o ON true
GROUP BY queue, atomic, p.waiting, p.dead
ORDER BY queue, atomic

-- name: parked_receivers
-- How many parked events each receiver has, also one that the code does not know any more.
SELECT receiver, count(*)
FROM bulksafe_parked
GROUP BY receiver
ORDER BY receiver

-- name: listeners
-- The daemons that are connected, by the name that they give their connections.
SELECT application_name, backend_start, client_addr::text
FROM pg_stat_activity
WHERE datname = current_database() AND starts_with(application_name, 'bulksafe listen ')
ORDER BY application_name

-- name: is_old
-- Whether the first event of a slot is older than a slot may become.
SELECT COALESCE((SELECT o.at < clock_timestamp() - %(age)s::interval FROM {slot} AS o LIMIT 1), false)

-- name: forget_queue
WITH cursors AS (
    DELETE FROM bulksafe_cursor
    WHERE queue = %(queue)s AND atomic = %(atomic)s
)
DELETE FROM bulksafe_started
WHERE queue = %(queue)s AND atomic = %(atomic)s

-- name: write_workers
-- The workers of one listener, and the calls that take long.
WITH listed AS (
    SELECT w.*
    FROM unnest(%(pids)s::integer[], %(queues)s::text[], %(receivers)s::text[], %(sources)s::bigint[],
                %(keys)s::text[], %(seconds)s::float8[])
         AS w (pid, queue, receiver, source, key, seconds)
    WHERE w.pid <> 0
), gone AS (
    DELETE FROM bulksafe_worker AS w
    WHERE (w.host, w.listener) = (%(host)s, %(listener)s) AND w.pid NOT IN (SELECT l.pid FROM listed AS l)
       OR w.seen_at < clock_timestamp() - interval '1 hour'
)
INSERT INTO bulksafe_worker AS k
    (host, pid, listener, queue, started_at, seen_at, receiver, source, key, call_since)
SELECT %(host)s, l.pid, %(listener)s, l.queue, clock_timestamp(), clock_timestamp(), l.receiver,
       l.source::oid::regclass, l.key, clock_timestamp() - l.seconds * interval '1 second'
FROM listed AS l
ON CONFLICT (host, pid) DO UPDATE
SET listener = EXCLUDED.listener, queue = EXCLUDED.queue, seen_at = EXCLUDED.seen_at,
    receiver = EXCLUDED.receiver, source = EXCLUDED.source, key = EXCLUDED.key, call_since = EXCLUDED.call_since

-- name: forget_workers
DELETE FROM bulksafe_worker
WHERE host = %(host)s AND listener = %(listener)s

-- name: workers
-- The workers that were seen lately.
SELECT host, pid, queue, started_at, receiver, source::text, key, call_since,
       COALESCE(date_part('epoch', clock_timestamp() - call_since), 0)
FROM bulksafe_worker
WHERE seen_at > clock_timestamp() - interval '15 seconds'
ORDER BY host, pid

-- name: longest_due
-- For how many seconds the event has been due that has waited longest. Of a cursor that is the event with the lowest
-- number; asked for like this, no plan scans the whole outbox for it.
SELECT GREATEST(
    (
        SELECT date_part('epoch', clock_timestamp() - min(o.at))
        FROM bulksafe_cursor AS c
        LEFT JOIN {query:lanes_known} AS l USING (queue, atomic)
        CROSS JOIN LATERAL (
            SELECT e.at
            FROM bulksafe_outbox AS e
            WHERE {query:unread}
            ORDER BY e.seq
            LIMIT 1
        ) AS o
        WHERE queue = ANY (%(queues)s)
    ),
    (
        SELECT date_part('epoch', clock_timestamp() - min(n.due))
        FROM unnest(%(queues)s::text[]) AS q (queue)
        CROSS JOIN LATERAL (
            SELECT p.due
            FROM bulksafe_parked AS p
            WHERE p.queue = q.queue AND p.state = 'waiting' AND p.leads AND p.due < statement_timestamp()
              AND (p.receiver, p.source::oid::bigint) IN (
                  SELECT * FROM unnest(%(receivers)s::text[], %(sources)s::bigint[])
              )
            ORDER BY p.due
            LIMIT 1
        ) AS n
    ),
    0
)
