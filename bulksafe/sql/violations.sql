-- The recorded violations. See migrations_templates/v1/violations.sql.

-- name: violation_limit
SELECT l.last_value FROM bulksafe_violation_limit AS l

-- name: set_violation_limit
SELECT setval('bulksafe_violation_limit', %(most)s)

-- name: violation_counts
SELECT v.invariant, v.kind, count(*), min(v.at), max(v.at)
FROM bulksafe_violation AS v
GROUP BY v.invariant, v.kind
ORDER BY v.invariant, v.kind

-- name: violations
-- The latest first.
SELECT v.invariant, v.kind, v.at, v.source::text, v.operation::text, v.key, v.old::text, v.new::text, v.login::text,
       v.role::text, v.context::text, v.query
FROM bulksafe_violation AS v
WHERE %(invariant)s::text IS NULL OR v.invariant = %(invariant)s
ORDER BY v.at DESC, v.invariant, v.number
LIMIT %(limit)s

-- name: violation_lanes
-- Eight lanes: as bulksafe_record has them.
SELECT DISTINCT v.invariant, (v.number - 1) %% 8 + 1
FROM bulksafe_violation AS v
WHERE %(invariant)s::text IS NULL OR v.invariant = %(invariant)s
ORDER BY 1, 2

-- name: lock_violation_lane
-- A writer would wait for a number whose record is being deleted.
SELECT pg_advisory_xact_lock(hashtextextended(%(invariant)s, 1651862123 + %(lane)s))

-- name: delete_violations
WITH gone AS (
    DELETE FROM bulksafe_violation AS v
    WHERE v.invariant = %(invariant)s AND (v.number - 1) %% 8 + 1 = %(lane)s
    RETURNING v.number
)
SELECT count(*) FROM gone
