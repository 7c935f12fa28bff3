-- Sessions whose locks are in the way.

-- name: holders
-- Who holds a lock for longer than so many seconds, and on what. Reading or vacuuming the cursors lets them move.
-- Without pg_read_all_stats the start of other roles' transactions is NULL: those are listed, too. A prepared
-- transaction has no process.
WITH wanted AS (
    SELECT 'outbox' AS what, n.slot::text AS name, to_regclass('bulksafe_outbox_' || n.slot)::oid AS relation
    FROM unnest(%(slots)s::smallint[]) AS n (slot)
    UNION ALL
    SELECT 'cursor', NULL, 'bulksafe_cursor'::regclass::oid
),
held AS (
    SELECT w.what, w.name, l.relation::regclass::text AS place, l.mode, l.pid, l.virtualtransaction
    FROM wanted AS w
    JOIN pg_locks AS l ON l.locktype = 'relation' AND l.relation = w.relation
    WHERE l.granted
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (w.what = 'outbox' OR l.mode NOT IN ('AccessShareLock', 'ShareUpdateExclusiveLock'))
    UNION ALL
    SELECT 'sleepers', NULL, 'advisory lock 1651862123, 0', l.mode, l.pid, l.virtualtransaction
    FROM pg_locks AS l
    WHERE l.locktype = 'advisory' AND l.granted
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.classid = 1651862123 AND l.objid = 0 AND l.objsubid = 2
)
SELECT h.what, h.name, h.place, string_agg(DISTINCT h.mode, ', ' ORDER BY h.mode), h.pid,
       COALESCE(a.usename, p.owner)::text, COALESCE(a.application_name, p.gid), since.since
FROM held AS h
LEFT JOIN pg_stat_activity AS a ON a.pid = h.pid
LEFT JOIN pg_locks AS t
  ON h.pid IS NULL AND t.pid IS NULL AND t.virtualtransaction = h.virtualtransaction AND t.locktype = 'transactionid'
LEFT JOIN pg_prepared_xacts AS p ON p.transaction = t.transactionid
CROSS JOIN LATERAL (SELECT COALESCE(a.xact_start, a.state_change, p.prepared) AS since) AS since
WHERE h.pid IS DISTINCT FROM pg_backend_pid()
  AND (
      since.since IS NULL
      OR since.since < clock_timestamp() - interval '1 second'
          * CASE h.what WHEN 'sleepers' THEN %(asleep)s::float8 ELSE %(seconds)s::float8 END
  )
GROUP BY h.what, h.name, h.place, h.pid, a.usename, p.owner, a.application_name, p.gid, since.since
ORDER BY h.what, h.name, since.since, h.pid
