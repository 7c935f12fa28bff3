-- Events that a receiver failed on, and those that wait behind them.

-- name: blocked
-- The rows whose events have to wait, by receiver.
SELECT DISTINCT p.queue, p.receiver, p.source::oid::bigint, p.key
FROM bulksafe_parked AS p
WHERE p.queue = ANY (%(queues)s) AND p.atomic = %(atomic)s AND p.bucket = ANY (%(buckets)s) AND p.blocks

-- name: park
-- Copied from the outbox: the images never leave the server, but for columns that are amended.
INSERT INTO bulksafe_parked
    (queue, atomic, bucket, receiver, seq, at, source, operation, key, old, new, matched, context, attempts,
     due, error, traceback, state, blocks, attempted_at)
SELECT w.queue, %(atomic)s::boolean, e.bucket, w.receiver, e.seq, e.at, e.source, w.operation::"char", e.key,
       f.old || COALESCE(w.old, '{}')::jsonb, e.new || COALESCE(w.new, '{}')::jsonb, e.matched, e.context, w.attempts, clock_timestamp() + w.delay * interval '1 second', w.error,
       w.traceback, w.state, w.blocks, CASE WHEN w.attempts > 0 THEN clock_timestamp() END
FROM unnest(%(queues)s::text[], %(receivers)s::text[], %(buckets)s::smallint[], %(firsts)s::bigint[],
            %(seqs)s::bigint[], %(operations)s::text[], %(attempts)s::integer[], %(delays)s::float8[],
            %(errors)s::text[], %(tracebacks)s::text[], %(states)s::text[], %(blocks)s::boolean[],
            %(olds)s::text[], %(news)s::text[])
     WITH ORDINALITY AS w (queue, receiver, bucket, first, seq, operation, attempts, delay, error, traceback,
                           state, blocks, old, new, number)
JOIN bulksafe_outbox AS e ON e.bucket = w.bucket AND e.seq = w.seq
JOIN bulksafe_outbox AS f ON f.bucket = w.bucket AND f.seq = w.first
-- Said once more, so that no plan scans the whole outbox.
WHERE e.bucket = ANY (%(buckets)s::smallint[]) AND e.seq = ANY (%(seqs)s::bigint[])
  AND f.bucket = ANY (%(buckets)s::smallint[]) AND f.seq = ANY (%(firsts)s::bigint[])
ORDER BY w.number

-- name: due
-- The first parked event of each row and receiver, if its time has come.
-- Columns as those of an event in the outbox, whose slot, transaction, part and depth nobody needs any more.
SELECT h.receiver, -1, h.seq, 0, h.bucket, date_part('epoch', h.at), h.source::oid::bigint, NULL, h.operation::text, 1,
       h.key, h.matched, h.context::text, h.id, h.attempts
FROM (
    SELECT DISTINCT ON (p.queue, p.bucket, p.receiver, p.source, p.key) p.*
    FROM bulksafe_parked AS p
    WHERE p.queue = ANY (%(queues)s) AND p.atomic = %(atomic)s AND p.bucket = ANY (%(buckets)s) AND p.blocks
    ORDER BY p.queue, p.bucket, p.receiver, p.source, p.key, p.id
) AS h
WHERE h.state = 'waiting' AND h.due <= clock_timestamp()
ORDER BY h.id
LIMIT %(limit)s

-- name: unpark
DELETE FROM bulksafe_parked
WHERE id = ANY (%(ids)s)

-- name: wake_followers
-- What waited behind an event that is done, or dead and skipped, is due now.
UPDATE bulksafe_parked AS p
SET due = clock_timestamp()
FROM bulksafe_parked AS q
WHERE q.id = ANY (%(ids)s)
  AND (p.queue, p.atomic, p.bucket, p.receiver, p.source, p.key)
    = (q.queue, q.atomic, q.bucket, q.receiver, q.source, q.key)
  AND p.id > q.id AND p.state = 'waiting' AND p.attempts = 0

-- name: failed_again
UPDATE bulksafe_parked
SET attempts = %(attempts)s,
    due = clock_timestamp() + %(delay)s * interval '1 second',
    error = %(error)s,
    traceback = %(traceback)s,
    state = %(state)s,
    blocks = %(blocks)s,
    attempted_at = clock_timestamp()
WHERE id = %(id)s

-- name: orphan
-- Nothing can be done about it until other code looks at it.
UPDATE bulksafe_parked
SET state = 'orphaned', error = %(error)s
WHERE id = %(id)s

-- name: adopt_orphans
-- A daemon that has just started may know what others did not.
UPDATE bulksafe_parked
SET state = 'waiting', due = clock_timestamp()
WHERE state = 'orphaned'

-- name: unfold
-- The table is known now: a parked event for each of its receivers, in place of one for all.
WITH whole AS (
    DELETE FROM bulksafe_parked
    WHERE id = %(id)s
    RETURNING *
)
INSERT INTO bulksafe_parked
    (queue, atomic, bucket, receiver, seq, at, source, operation, key, old, new, matched, context)
SELECT w.queue, w.atomic, w.bucket, r.name, w.seq, w.at, w.source, w.operation, w.key, w.old, w.new, w.matched,
       w.context
FROM whole AS w
CROSS JOIN unnest(%(receivers)s::text[]) WITH ORDINALITY AS r (name, number)
ORDER BY r.number

-- name: retry
-- Dead letters get all their attempts again; waiting events are due now.
UPDATE bulksafe_parked
SET state = 'waiting', blocks = true, due = clock_timestamp(), attempts = 0,
    receiver = COALESCE(%(rename)s, receiver)
WHERE {selection}
RETURNING id

-- name: discard
DELETE FROM bulksafe_parked
WHERE {selection}
RETURNING id

-- name: parked_events
SELECT id, queue, atomic, receiver, state, attempts, source::text, key, operation::text, at, due, error, traceback,
       old::text, new::text, context::text, seq
FROM bulksafe_parked
WHERE {selection}
ORDER BY id
LIMIT %(limit)s
