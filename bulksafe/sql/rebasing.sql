-- After a dump was restored into another cluster, which has its own transaction numbers.

-- name: is_ahead
-- Whether cursors or events name transactions that this cluster has not come to. The first and the last event of a
-- bucket will do: those of the other cluster come first.
SELECT COALESCE(GREATEST(
           (SELECT max(pg_snapshot_xmax(COALESCE(c.upper, c.lower))::text::numeric) FROM bulksafe_cursor AS c),
           (
               SELECT max(o.xid::text::numeric + 1)
               FROM generate_series(0, 15) AS b (bucket)
               CROSS JOIN LATERAL (
                   (SELECT e.xid FROM bulksafe_outbox AS e WHERE e.bucket = b.bucket ORDER BY e.seq DESC LIMIT 1)
                   UNION ALL
                   (SELECT e.xid FROM bulksafe_outbox AS e WHERE e.bucket = b.bucket ORDER BY e.seq LIMIT 1)
               ) AS o
           )
       ) > pg_snapshot_xmax(pg_current_snapshot())::text::numeric, false)

-- name: lock_all
LOCK TABLE bulksafe_outbox, bulksafe_cursor IN ACCESS EXCLUSIVE MODE

-- name: own_xid
SELECT pg_current_xact_id()::text

-- name: forget_read
-- Events that all cursors have passed. What was captured after a cursor moved last cannot be among them: it was
-- written in this cluster, whose low numbers only look as if they had been seen.
DELETE FROM bulksafe_outbox AS o
WHERE NOT EXISTS (
    SELECT FROM bulksafe_cursor AS c
    WHERE c.bucket = o.bucket
      AND NOT (
          o.at <= c.served_at
          AND (
              pg_visible_in_snapshot(o.xid, c.lower)
              OR (COALESCE(o.seq <= c.position, false) AND pg_visible_in_snapshot(o.xid, c.upper))
              OR o.seq = ANY (c.skip)
          )
      )
)

-- name: rebase_cursors
-- All that is left is the work of one transaction of this cluster, which no cursor has seen, apart from what a
-- cursor is to skip.
UPDATE bulksafe_cursor AS c
SET skip = (
        SELECT COALESCE(array_agg(o.seq ORDER BY o.seq), '{}')
        FROM bulksafe_outbox AS o
        WHERE c.bucket = o.bucket
          AND o.at <= c.served_at
          AND (
              pg_visible_in_snapshot(o.xid, c.lower)
              OR (COALESCE(o.seq <= c.position, false) AND pg_visible_in_snapshot(o.xid, c.upper))
              OR o.seq = ANY (c.skip)
          )
    ),
    lower = (%(xid)s || ':' || %(xid)s || ':')::pg_snapshot,
    floor = 0,
    running = '{}',
    upper = NULL,
    upper_floor = NULL,
    position = NULL

-- name: rebase_events
UPDATE bulksafe_outbox SET xid = %(xid)s::xid8
