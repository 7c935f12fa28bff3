-- What the writer's connection asks.

-- name: reaching
-- Tables whose change changes rows of others: partitions are the tables themselves, and the actions of foreign
-- keys reach on. Each with the table that it reaches.
WITH RECURSIVE reach (relation, name) AS (
    SELECT c.oid, c.relname
    FROM pg_class AS c
    WHERE c.relname = ANY (%(names)s::name[]) AND c.relkind IN ('r', 'p')
    UNION
    SELECT found.relation, r.name
    FROM reach AS r
    CROSS JOIN LATERAL (
        SELECT i.inhrelid AS relation FROM pg_inherits AS i WHERE i.inhparent = r.relation
        UNION
        SELECT k.confrelid
        FROM pg_constraint AS k
        WHERE k.contype = 'f' AND k.conrelid = r.relation
          AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))
    ) AS found
)
SELECT c.relname::text, r.name::text
FROM reach AS r
JOIN pg_class AS c ON c.oid = r.relation

-- name: discard_buffered
SELECT count(*) FROM bulksafe_take(%s, %s, 0)
