-- Reading the outbox: who may go on, with what, and how far one has come.

-- name: prefix
-- The prefix that makes this database's event ids unique.
SELECT left(id::text, 8)
FROM bulksafe_outbox_identity

-- name: session
-- Part of others: what a receiver may not leave behind it on the connection that it shares.
ARRAY[current_setting('search_path'), current_user::text, current_setting('statement_timeout'),
             current_setting('lock_timeout'), current_setting('transaction_read_only'),
             current_setting('session_replication_role')]

-- name: session_now
SELECT {query:session}

-- name: unlimited_until_16
-- Part of others: no timeout of the role's or the server's ends the transaction of a worker, whose receivers have one
-- of their own. A process that is stopped, or a machine that is, holds its locks for so long and no longer. For the
-- transaction only, since a pooler may share the connection.
ARRAY[set_config('idle_in_transaction_session_timeout', '{idle}', true), set_config('statement_timeout', '0', true),
             set_config('lock_timeout', '0', true)]

-- name: unlimited_from_17_on
ARRAY[set_config('idle_in_transaction_session_timeout', '{idle}', true), set_config('statement_timeout', '0', true),
             set_config('lock_timeout', '0', true), set_config('transaction_timeout', '0', true)]

-- name: work
-- Part of others: the cursors that have work. A cursor has if its window is open, or if a transaction that it has
-- not seen wrote events for its bucket, of a table that its lane has receivers for. Transactions that were running are
-- looked for only when they have ended, and from the lowest number that one began at, so that one which runs for hours
-- costs nothing. A cursor that is far behind has work, too: otherwise each look would scan the events of other lanes.
-- The first number and not EXISTS: the planner expects an event to come soon, and would scan the whole outbox for one
-- that is not there. A single subquery reads the outbox, because planning such a subquery takes longer than running it.
(
          c.upper IS NOT NULL
          OR (
              SELECT unseen.floor < (SELECT last_value - 500 FROM bulksafe_outbox_seq)
                  OR (
                      SELECT o.seq
                      FROM bulksafe_outbox AS o
                      WHERE o.bucket = c.bucket AND o.seq > unseen.floor
                        AND (o.xid >= pg_snapshot_xmax(c.lower) OR o.xid = ANY (unseen.ended))
                        AND o.source = ANY (l.sources)
                      ORDER BY o.seq
                      LIMIT 1
                  ) IS NOT NULL
              FROM (
                  SELECT LEAST(c.floor, min(r.value::bigint)) AS floor, array_agg(r.key::xid8) AS ended
                  FROM jsonb_each_text(c.running) AS r
                  WHERE pg_visible_in_snapshot(r.key::xid8, pg_current_snapshot())
              ) AS unseen
          )
      )

-- name: lanes_known
-- Part of others: the lanes that this code has receivers in, each with their tables.
(
          SELECT queue, atomic, sources::regclass[] AS sources
          FROM unnest(%(lane_queues)s::text[], %(lane_atomics)s::boolean[], %(lane_sources)s::text[])
               AS n (queue, atomic, sources)
          OFFSET 0
      )

-- name: ready
-- For each queue, whether a cursor has work, whether any parked call may be due, and the last event number. Whether a
-- parked call is free takes longer to plan than this takes in all, and most of the time none is due.
SELECT q.queue,
       EXISTS (
           SELECT
           FROM bulksafe_cursor AS c
           JOIN {query:lanes_known} AS l USING (queue, atomic)
           WHERE c.queue = q.queue AND {query:work}
       ),
       {query:is_due},
       (SELECT last_value FROM bulksafe_outbox_seq)
FROM unnest(%(queues)s::text[]) AS q (queue)

-- name: ready_parked
-- The queues that have a parked call to make.
SELECT q.queue
FROM unnest(%(queues)s::text[]) AS q (queue)
WHERE EXISTS (SELECT FROM bulksafe_parked AS p WHERE p.queue = q.queue AND {query:free})

-- name: next_due
-- Seconds until the next attempt of a failed call. The index answers that by one entry for each queue.
SELECT date_part('epoch', min(n.due) - clock_timestamp())
FROM unnest(%(queues)s::text[]) AS q (queue)
CROSS JOIN LATERAL (
    SELECT p.due
    FROM bulksafe_parked AS p
    WHERE p.queue = q.queue AND p.state = 'waiting' AND p.leads AND p.due < 'infinity' AND p.due > statement_timestamp()
    ORDER BY p.due
    LIMIT 1
) AS n

-- name: claim
-- The lock on the cursor's row is the right to go on from there; it ends with the transaction. Those without
-- work are claimed too if no worker has checked them for long. The locked row is returned.
-- "seen" is the same row as the snapshot sees it. If it differs, another worker moved the cursor after the snapshot was
-- taken, and the other columns are too old for it: the snapshot; the present transaction, which gets its number only if
-- there is work; the last event number that was given, also in running transactions; and whether any event of these
-- queues is parked. Only of these: a long history of one queue must not slow the others.
WITH due AS MATERIALIZED (
    SELECT c.queue, c.atomic, c.bucket, c.lower, c.floor, c.running, c.upper, c.upper_floor,
           c.position, c.skip, c.batch
    FROM bulksafe_cursor AS c
    JOIN {query:lanes_known} AS l USING (queue, atomic)
    WHERE c.atomic = %(atomic)s
      AND ({query:work} OR c.served_at < clock_timestamp() - %(stale)s::float8 * interval '1 second')
    ORDER BY c.served_at
    LIMIT %(limit)s
    FOR UPDATE OF c SKIP LOCKED
)
SELECT (SELECT {unlimited}),
       d.batch = seen.batch,
       pg_current_snapshot()::text,
       pg_current_xact_id()::text::bigint,
       (SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM bulksafe_outbox_seq),
       EXISTS (SELECT FROM bulksafe_parked AS p WHERE p.queue = ANY (%(lane_queues)s::text[]) AND p.blocks),
       {query:session},
       d.queue, d.atomic, d.bucket, d.lower::text, d.floor, d.running, d.upper::text, d.upper_floor, d.position,
       d.skip, d.batch, s.batch, s.suspect_receiver, s.suspect_seq, s.suspect_error
FROM due AS d
JOIN bulksafe_cursor AS seen USING (queue, atomic, bucket)
LEFT JOIN bulksafe_started AS s USING (queue, atomic, bucket)

-- name: started
-- Stored before the first call of a batch, on a connection of its own. No call has brought a crash of the server
-- about, so that nothing need be on the disk by then. For this transaction only: a pooler may share the connection.
-- The marker of a killed worker may come late: it must not replace that of a later batch.
INSERT INTO bulksafe_started AS s (queue, atomic, bucket, batch)
SELECT w.queue, true, w.bucket, w.batch
FROM unnest(%(queues)s::text[], %(buckets)s::smallint[], %(batches)s::bigint[]) AS w (queue, bucket, batch)
CROSS JOIN (SELECT set_config('synchronous_commit', 'off', true)) AS quickly
ON CONFLICT (queue, atomic, bucket) DO UPDATE
SET batch = EXCLUDED.batch, suspect_receiver = NULL, suspect_seq = NULL, suspect_error = NULL
WHERE s.batch < EXCLUDED.batch

-- name: event
-- Part of others: the columns of an event. The size is that on disk, which is known without reading the images.
e.slot, e.seq, e.xid::text::bigint, e.bucket, date_part('epoch', e.at), e.source::oid::bigint,
       e.part::oid::bigint, e.operation::text, e.depth, e.key,
       COALESCE(pg_column_size(e.old), 0) + COALESCE(pg_column_size(e.new), 0), e.matched, e.context::text

-- name: fetch
-- The next events of some cursors' windows, by number.
SELECT {query:event}
FROM unnest(%(buckets)s::smallint[], %(starts)s::bigint[], %(lowers)s::text[], %(uppers)s::text[])
     AS w (bucket, start, lower, upper)
CROSS JOIN LATERAL (
    SELECT o.*
    FROM bulksafe_outbox AS o
    WHERE o.bucket = w.bucket
      AND o.seq > w.start
      AND pg_visible_in_snapshot(o.xid, w.upper::pg_snapshot)
      AND NOT pg_visible_in_snapshot(o.xid, w.lower::pg_snapshot)
    ORDER BY o.bucket, o.seq
    LIMIT %(limit)s
) AS e
ORDER BY e.bucket, e.seq

-- name: fetch_beyond
-- The later events of the same rows and transactions, where several belong to one change.
SELECT {query:event}
FROM unnest(%(buckets)s::smallint[], %(positions)s::bigint[], %(xids)s::text[], %(sources)s::bigint[],
            %(keys)s::text[]) AS k (bucket, position, xid, source, key)
JOIN bulksafe_outbox AS e
  ON e.bucket = k.bucket AND e.seq > k.position AND e.xid = k.xid::xid8
 AND e.source = k.source::oid::regclass AND e.key = k.key
ORDER BY e.bucket, e.seq

-- name: fetch_between
-- The events of some rows of several tables that another transaction of the same window wrote between those of a
-- transaction that is dealt with now.
SELECT {query:event}
FROM unnest(%(sources)s::bigint[], %(keys)s::text[], %(lasts)s::bigint[]) AS k (source, key, last)
JOIN bulksafe_outbox AS e
  ON e.source = k.source::oid::regclass AND e.key = k.key AND e.seq < k.last
WHERE e.bucket = %(bucket)s
  AND e.seq > %(position)s
  AND e.part IS NOT NULL
  AND pg_visible_in_snapshot(e.xid, %(upper)s::pg_snapshot)
  AND NOT pg_visible_in_snapshot(e.xid, %(lower)s::pg_snapshot)
ORDER BY e.seq

-- name: fetch_rest
-- What the cursors have still to deal with of some rows of several tables: the first event of each part and
-- operation, and what its transaction did of the same, since a trigger's change may have the lower number.
SELECT {query:event}
FROM (
    SELECT o.*,
           first_value(o.xid) OVER (
               PARTITION BY o.source, o.key, o.part, o.operation, COALESCE('otherwise' = ANY (o.matched), false)
               ORDER BY o.seq
           ) AS first_xid
    FROM unnest(%(buckets)s::smallint[], %(floors)s::bigint[], %(lowers)s::text[], %(uppers)s::text[],
                %(positions)s::bigint[], %(sources)s::bigint[], %(keys)s::text[])
         AS k (bucket, floor, lower, upper, position, source, key)
    JOIN bulksafe_outbox AS o
      ON o.bucket = k.bucket AND o.seq > k.floor AND o.source = k.source::oid::regclass AND o.key = k.key
    WHERE o.part IS NOT NULL
      AND NOT pg_visible_in_snapshot(o.xid, k.lower::pg_snapshot)
      AND (
          k.upper IS NULL
          OR o.seq > k.position
          OR NOT pg_visible_in_snapshot(o.xid, k.upper::pg_snapshot)
      )
      AND o.seq <> ALL (%(skips)s::bigint[])
) AS e
WHERE e.xid = e.first_xid
ORDER BY e.seq

-- name: parts_of_images
-- Some columns of images, as JSON.
SELECT e.seq, k.side, (
           SELECT jsonb_object_agg(c.key, c.value)
           FROM jsonb_each(CASE k.side WHEN 'old' THEN e.old ELSE e.new END) AS c
           WHERE c.key = ANY (%(columns)s::text[])
       )::text
FROM unnest(%(slots)s::smallint[], %(buckets)s::smallint[], %(seqs)s::bigint[], %(sides)s::text[])
     AS k (slot, bucket, seq, side)
JOIN bulksafe_outbox AS e ON (e.slot, e.bucket, e.seq) = (k.slot, k.bucket, k.seq)
-- Said once more, so that no plan scans the whole outbox.
WHERE e.slot = ANY (%(slots)s::smallint[])
  AND e.bucket = ANY (%(buckets)s::smallint[])
  AND e.seq = ANY (%(seqs)s::bigint[])

-- name: own_events
-- What the present transaction has written itself, for tests that never commit.
SELECT {query:event}
FROM bulksafe_outbox AS e
WHERE e.xid = pg_current_xact_id_if_assigned() AND e.seq > %(after)s
ORDER BY e.seq

-- name: advance
UPDATE bulksafe_cursor AS c
SET lower = w.lower::pg_snapshot,
    floor = w.floor,
    running = w.running::jsonb,
    upper = w.upper::pg_snapshot,
    upper_floor = w.upper_floor,
    position = w.position,
    skip = w.skip::bigint[],
    batch = w.batch,
    served_at = clock_timestamp()
FROM unnest(%(buckets)s::smallint[], %(queues)s::text[], %(lowers)s::text[], %(floors)s::bigint[],
            %(runnings)s::text[], %(uppers)s::text[], %(upper_floors)s::bigint[], %(positions)s::bigint[],
            %(skips)s::text[], %(batches)s::bigint[])
     AS w (bucket, queue, lower, floor, running, upper, upper_floor, position, skip, batch)
WHERE (c.queue, c.atomic, c.bucket) = (w.queue, %(atomic)s, w.bucket)
RETURNING {query:session}

-- name: create_cursors
-- A new queue begins now. What runs now may have numbered its events at any time.
INSERT INTO bulksafe_cursor (queue, atomic, bucket, lower, floor, running)
SELECT q.queue, q.atomic, b.bucket, pg_current_snapshot(), 0, (
           SELECT COALESCE(jsonb_object_agg(x.xid::text, 0), '{}')
           FROM pg_snapshot_xip(pg_current_snapshot()) AS x (xid)
       )
FROM unnest(%(queues)s::text[], %(atomics)s::boolean[]) AS q (queue, atomic)
CROSS JOIN generate_series(0, 15) AS b (bucket)
ON CONFLICT DO NOTHING

-- name: lanes
SELECT DISTINCT queue, atomic FROM bulksafe_cursor ORDER BY queue, atomic

-- name: sleep
-- While a listener holds this lock, writers notify it. A listener that cannot get it must not sleep: writers are active
-- that will not, unless the lock is held by another listener.
SELECT {unlimited}, pg_try_advisory_xact_lock(1651862123, 0)

-- name: other_sleeper
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND classid = 1651862123 AND objid = 0
      AND mode = 'ExclusiveLock' AND granted
)

-- name: delivered_here
-- For tests that never commit: how far each queue has come in the present transaction, and the last number that
-- was given. A setting, since a rollback to a savepoint takes it back, as it does with the receivers' effects.
SELECT current_setting('bulksafe.delivered', true),
       (SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM bulksafe_outbox_seq)

-- name: note_delivered_here
SELECT set_config('bulksafe.delivered', %(delivered)s, true)

-- name: adopt_queue
-- For tests: a queue that was declared after the migrations begins where the default one is.
INSERT INTO bulksafe_cursor (queue, atomic, bucket, lower, floor, running)
SELECT %(queue)s, %(atomic)s, c.bucket, c.lower, c.floor, c.running
FROM bulksafe_cursor AS c
WHERE c.queue = 'default' AND c.atomic
  AND NOT EXISTS (
      SELECT FROM bulksafe_cursor AS known WHERE known.queue = %(queue)s AND known.atomic = %(atomic)s
  )
ON CONFLICT DO NOTHING
