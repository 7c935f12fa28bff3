-- Calls that are made one by one: each holds its own row and nothing else.

-- name: blocked
-- Which rows of a page have calls that wait, by receiver, and whether the first of them was never tried: what
-- receivers of other names do with the row waits for that one, too, as their order is declared.
SELECT DISTINCT ON (p.receiver, p.source, p.key)
       p.receiver, p.source::oid::bigint, p.key,
       p.attempts = 0
       OR (p.attempts = 1 AND (p.error IS NULL OR COALESCE(p.leased_until > clock_timestamp(), false)))
FROM unnest(%(buckets)s::smallint[], %(sources)s::bigint[], %(keys)s::text[]) AS w (bucket, source, key)
JOIN bulksafe_parked AS p
  ON p.queue = %(queue)s AND p.atomic = %(atomic)s
 AND p.bucket = w.bucket AND p.source = w.source::oid::regclass AND p.key = w.key
WHERE p.blocks
ORDER BY p.receiver, p.source, p.key, p.id

-- name: park
-- Copied from the outbox: the images never leave the server, but for columns that are amended.
INSERT INTO bulksafe_parked
    (queue, atomic, bucket, receiver, seq, at, source, operation, key, old, new, matched, context, call, leads,
     attempts, due, error, traceback, state, blocks, attempted_at)
SELECT %(queue)s, %(atomic)s::boolean, e.bucket, w.receiver, e.seq, e.at, e.source, w.operation::"char", e.key,
       f.old || COALESCE(w.old, '{}')::jsonb, e.new || COALESCE(w.new, '{}')::jsonb, e.matched, e.context, w.call,
       w.leads, w.attempts,
       CASE WHEN w.delay IS NULL THEN 'infinity' ELSE clock_timestamp() + w.delay * interval '1 second' END,
       w.error, w.traceback, w.state, w.blocks, CASE WHEN w.attempts > 0 THEN clock_timestamp() END
FROM unnest(%(receivers)s::text[], %(buckets)s::smallint[], %(firsts)s::bigint[], %(seqs)s::bigint[],
            %(operations)s::text[], %(calls)s::bigint[], %(leads)s::boolean[], %(attempts)s::integer[],
            %(delays)s::float8[], %(errors)s::text[], %(tracebacks)s::text[], %(states)s::text[],
            %(blocks)s::boolean[], %(olds)s::text[], %(news)s::text[])
     WITH ORDINALITY AS w (receiver, bucket, first, seq, operation, call, leads, attempts, delay, error, traceback,
                           state, blocks, old, new, number)
JOIN bulksafe_outbox AS e ON e.bucket = w.bucket AND e.seq = w.seq
JOIN bulksafe_outbox AS f ON f.bucket = w.bucket AND f.seq = w.first
-- Said once more, so that no plan scans the whole outbox.
WHERE e.bucket = ANY (%(buckets)s::smallint[]) AND e.seq = ANY (%(seqs)s::bigint[])
  AND f.bucket = ANY (%(buckets)s::smallint[]) AND f.seq = ANY (%(firsts)s::bigint[])
ORDER BY w.number
RETURNING id

-- name: next_calls
-- Numbers for calls of several events.
SELECT nextval('bulksafe_call_seq') FROM generate_series(1, %(number)s)

-- name: free
-- Part of the next two: the waiting calls that may be made now. No process makes them; no call for the same row and
-- receiver precedes them, nor an unattempted one of another receiver in this code.
-- A first attempt without an error still runs: a call in a transaction may outlast its lease.
p.state = 'waiting'
      AND p.leads
      AND p.blocks
      AND p.due <= clock_timestamp()
      AND (p.leased_until IS NULL OR p.leased_until < clock_timestamp())
      AND (p.receiver, p.source::oid::bigint) IN (
          SELECT * FROM unnest(%(receivers)s::text[], %(sources)s::bigint[])
      )
      AND NOT EXISTS (
          SELECT
          FROM bulksafe_parked AS m
          JOIN bulksafe_parked AS q
            ON (q.queue, q.atomic, q.bucket, q.source, q.key) = (m.queue, m.atomic, m.bucket, m.source, m.key)
           AND q.id < m.id AND q.blocks
          WHERE m.id = ANY (
                    CASE WHEN p.call IS NULL THEN ARRAY[p.id]
                    ELSE ARRAY(SELECT o.id FROM bulksafe_parked AS o WHERE (o.queue, o.call) = (p.queue, p.call)) END
                )
            AND (q.call = m.call) IS NOT TRUE
            AND (
                q.receiver IN (m.receiver, '*')
                OR (
                    q.state = 'waiting'
                    AND (q.receiver, q.source::oid::bigint) IN (
                        SELECT * FROM unnest(%(receivers)s::text[], %(sources)s::bigint[])
                    )
                    AND (
                        q.attempts = 0
                        OR (q.attempts = 1 AND (q.error IS NULL OR q.leased_until > clock_timestamp()))
                    )
                    AND q.due < 'infinity'
                )
            )
      )

-- name: is_due
-- Part of others: whether a call may be free. The index alone answers that, by the call that is due first.
COALESCE((
           SELECT min(p.due) <= clock_timestamp()
           FROM bulksafe_parked AS p
           WHERE p.queue = q.queue AND p.state = 'waiting' AND p.leads
       ), false)

-- name: is_taken
-- Whether calls are taken and not begun: if their process has died, they are free again in a moment.
SELECT EXISTS (
    SELECT
    FROM bulksafe_parked AS p
    WHERE p.queue = ANY (%(queues)s) AND p.state = 'waiting' AND p.leads AND p.due <= statement_timestamp()
      AND p.leased_until BETWEEN clock_timestamp() AND clock_timestamp() + %(lease)s * interval '1 second'
)

-- name: has_due
SELECT {query:is_due} FROM (SELECT %(queue)s::text) AS q (queue)

-- name: take
-- The next calls of a queue. They are this worker's for a moment, in which each of them is begun or left to others.
-- The columns of an event in the outbox; its slot, transaction, part and depth are no longer needed.
WITH head AS MATERIALIZED (
    SELECT p.id, p.queue, p.call, p.due
    FROM bulksafe_parked AS p
    CROSS JOIN (SELECT set_config('synchronous_commit', 'off', true)) AS quickly
    WHERE p.queue = %(queue)s AND {query:free}
    ORDER BY p.due, p.id
    LIMIT %(limit)s
    FOR UPDATE OF p SKIP LOCKED
), members AS MATERIALIZED (
    SELECT id, id AS head, due FROM head
    UNION
    SELECT o.id, h.id, h.due
    FROM head AS h
    JOIN bulksafe_parked AS o ON (o.queue, o.call) = (h.queue, h.call)
), taken AS (
    UPDATE bulksafe_parked AS p
    SET epoch = p.epoch + 1, leased_until = clock_timestamp() + %(lease)s * interval '1 second'
    FROM members AS m
    WHERE p.id = m.id
    RETURNING m.head, m.due AS was_due, p.*
)
SELECT t.head, t.atomic, t.receiver, t.epoch, t.error,
       -1, t.seq, 0, t.bucket, date_part('epoch', t.at), t.source::oid::bigint, NULL, t.operation::text, 1, t.key,
       0, t.matched, t.context::text, t.id, t.attempts
FROM taken AS t
ORDER BY t.was_due, t.head, t.id

-- name: begin
-- The attempt is counted when it begins, whatever becomes of its process. Nothing, if another worker has taken it.
UPDATE bulksafe_parked AS p
SET attempts = p.attempts + 1,
    leased_until = clock_timestamp() + %(lease)s * interval '1 second',
    attempted_at = clock_timestamp()
FROM (SELECT set_config('synchronous_commit', 'off', true)) AS quickly
WHERE p.id = ANY (%(ids)s) AND p.epoch = %(epoch)s
RETURNING p.id

-- name: release
-- Calls that were taken and not begun.
UPDATE bulksafe_parked AS p
SET leased_until = NULL
FROM unnest(%(ids)s::bigint[], %(epochs)s::bigint[]) AS w (id, epoch)
WHERE (p.id, p.epoch) = (w.id, w.epoch)

-- name: lock_taken
-- Locks a call in a transaction. Nothing, if a different process has taken it over.
SELECT {unlimited}, {query:session}
FROM bulksafe_parked
WHERE id = %(id)s AND epoch = %(epoch)s
FOR UPDATE

-- name: renew
-- A call in a transaction holds its row's lock, and needs no lease besides.
WITH held AS MATERIALIZED (
    SELECT p.id
    FROM unnest(%(ids)s::bigint[], %(epochs)s::bigint[]) AS w (id, epoch)
    JOIN bulksafe_parked AS p ON (p.id, p.epoch) = (w.id, w.epoch)
    WHERE p.leased_until IS NOT NULL
    FOR UPDATE OF p SKIP LOCKED
)
UPDATE bulksafe_parked AS p
SET leased_until = clock_timestamp() + %(lease)s * interval '1 second'
FROM held AS h
WHERE p.id = h.id

-- name: done
-- The call is made; what waits behind it is due. Nothing, if another worker has taken it over.
WITH gone AS (
    DELETE FROM bulksafe_parked AS p
    WHERE p.id = ANY (%(ids)s) AND p.epoch = %(epoch)s
    RETURNING p.*
), woken AS (
    {query:wake_next}
)
SELECT id FROM gone

-- name: wake_next
-- Part of others: the first call behind each that is gone.
UPDATE bulksafe_parked AS p
    SET due = clock_timestamp()
    FROM gone AS g
    WHERE p.due = 'infinity'
      AND p.id = (
          SELECT min(n.id)
          FROM bulksafe_parked AS n
          WHERE (n.queue, n.atomic, n.bucket, n.source, n.key, n.receiver)
              = (g.queue, g.atomic, g.bucket, g.source, g.key, g.receiver)
            AND n.id > g.id AND n.blocks AND n.id NOT IN (SELECT o.id FROM gone AS o)
      )

-- name: wake_free
-- Calls that wait behind one which has gone at the same moment, so that neither saw the other.
UPDATE bulksafe_parked AS p
SET due = clock_timestamp()
WHERE {among}
  AND p.due = 'infinity'
  AND p.state = 'waiting'
  AND p.leads
  AND p.blocks
  AND NOT EXISTS (
      SELECT FROM bulksafe_parked AS q
      WHERE (q.queue, q.atomic, q.bucket, q.source, q.key, q.receiver)
          = (p.queue, p.atomic, p.bucket, p.source, p.key, p.receiver)
        AND q.id < p.id AND q.blocks
  )

-- name: failed
-- Nothing, if another worker has taken it over.
WITH failed AS (
    UPDATE bulksafe_parked
    SET attempts = %(attempts)s,
        due = clock_timestamp() + %(delay)s * interval '1 second',
        error = %(error)s,
        traceback = %(traceback)s,
        state = %(state)s,
        blocks = %(blocks)s,
        leased_until = NULL
    WHERE id = %(id)s AND epoch = %(epoch)s
    RETURNING *
), gone AS (
    SELECT * FROM failed WHERE NOT blocks
), woken AS (
    {query:wake_next}
)
SELECT id FROM failed

-- name: split
-- A call of several events has failed: each of them gets a call of its own, all attempts of which are left.
UPDATE bulksafe_parked
SET call = NULL, leads = true, attempts = 0, due = clock_timestamp(), leased_until = NULL
WHERE id = ANY (%(ids)s) AND epoch = %(epoch)s

-- name: died
-- The process of a call has ended in it. The attempt was counted when it started.
UPDATE bulksafe_parked
SET error = %(error)s,
    due = clock_timestamp() + %(delay)s * interval '1 second',
    leased_until = NULL
WHERE id = %(id)s AND epoch = %(epoch)s AND state = 'waiting'

-- name: give_back
-- The process was asked to stop during a call: that does not count as an attempt.
UPDATE bulksafe_parked
SET attempts = attempts - 1, due = clock_timestamp(), leased_until = NULL
WHERE id = %(id)s AND epoch = %(epoch)s AND state = 'waiting'

-- name: suspect
-- The same of a call in a batch.
UPDATE bulksafe_started
SET suspect_receiver = %(receiver)s, suspect_seq = %(seq)s, suspect_error = %(error)s
WHERE queue = %(queue)s AND atomic AND bucket = %(bucket)s

-- name: unfold
-- The table is known now: a parked event for each of its receivers, in place of one for all.
WITH whole AS (
    DELETE FROM bulksafe_parked
    WHERE id = %(id)s AND epoch = %(epoch)s
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
-- Dead letters get all their attempts again; waiting events are due now, unless others of their row come first.
-- Each becomes a separate call, and so do the other events of its call: they may lose their leader. A receiver that they
-- are moved to takes them from its own queue only. Those that are moved together are still elsewhere in the snapshot.
WITH chosen AS (
    SELECT id, queue, call
    FROM bulksafe_parked
    WHERE {selection}
), others AS (
    {query:set_free}
)
UPDATE bulksafe_parked AS p
SET state = 'waiting',
    blocks = true,
    attempts = 0,
    call = NULL,
    leads = true,
    receiver = COALESCE(%(to_receiver)s, p.receiver),
    queue = COALESCE(%(to_queue)s, p.queue),
    atomic = COALESCE(%(to_atomic)s, p.atomic),
    due = CASE WHEN EXISTS (
        SELECT FROM bulksafe_parked AS q
        WHERE (q.queue, q.atomic, q.bucket, q.source, q.key, q.receiver)
            = (
                COALESCE(%(to_queue)s, p.queue), COALESCE(%(to_atomic)s, p.atomic), p.bucket, p.source, p.key,
                COALESCE(%(to_receiver)s, p.receiver)
            )
          AND q.id < p.id AND (q.blocks OR q.state = 'dead')
    ) OR (
        %(to_receiver)s::text IS NOT NULL
        AND EXISTS (
            SELECT FROM bulksafe_parked AS q
            WHERE (q.bucket, q.source, q.key) = (p.bucket, p.source, p.key)
              AND q.id < p.id AND q.id IN (SELECT id FROM chosen)
        )
    ) THEN 'infinity' ELSE clock_timestamp() END
WHERE p.id IN (SELECT id FROM chosen)
RETURNING id

-- name: behind
-- How many of these wait for an earlier event of their row.
SELECT count(*) FROM bulksafe_parked WHERE id = ANY (%(ids)s) AND due = 'infinity'

-- name: set_free
-- Part of others: the other events of calls of which some are taken out.
UPDATE bulksafe_parked AS o
    SET call = NULL, leads = true
    FROM (SELECT DISTINCT queue, call FROM chosen WHERE call IS NOT NULL) AS c
    WHERE (o.queue, o.call) = (c.queue, c.call) AND o.id NOT IN (SELECT id FROM chosen)

-- name: discard
WITH gone AS (
    DELETE FROM bulksafe_parked
    WHERE {selection}
    RETURNING *
), chosen AS (
    SELECT id, queue, call FROM gone
), others AS (
    {query:set_free}
), woken AS (
    {query:wake_next}
)
SELECT id FROM gone

-- name: parked_count
SELECT count(*) FROM bulksafe_parked WHERE {selection}

-- name: parked_events
SELECT id, queue, atomic, receiver, state, attempts, source::text, key, operation::text, at,
       NULLIF(due, 'infinity'), error, traceback,
       old::text, new::text, context::text, seq
FROM bulksafe_parked
WHERE {selection}
ORDER BY id
LIMIT %(limit)s
