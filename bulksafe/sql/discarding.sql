-- Giving up all events that wait.

-- name: lock_to_discard
-- Transactions that have written events and not ended are waited for.
LOCK TABLE bulksafe_outbox, bulksafe_cursor, bulksafe_parked IN ACCESS EXCLUSIVE MODE

-- name: undelivered
-- How many events some queue has not delivered, how many are parked, and how many of those are dead letters.
SELECT (
           SELECT count(*)
           FROM bulksafe_outbox AS o
           WHERE EXISTS (
               SELECT FROM bulksafe_cursor AS c
               WHERE c.bucket = o.bucket
                 AND NOT (
                     pg_visible_in_snapshot(o.xid, c.lower)
                     OR (COALESCE(o.seq <= c.position, false) AND pg_visible_in_snapshot(o.xid, c.upper))
                     OR o.seq = ANY (c.skip)
                 )
           )
       ),
       count(*) FILTER (WHERE p.state <> 'dead'),
       count(*) FILTER (WHERE p.state = 'dead')
FROM bulksafe_parked AS p

-- name: discard_undelivered
-- The cursors stay: queues go on with the next event.
TRUNCATE bulksafe_outbox, bulksafe_parked
