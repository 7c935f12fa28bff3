-- What the writer's connection asks.

-- name: reaching
-- Tables whose change changes rows of others: partitions are the tables themselves, and the actions of foreign
-- keys reach on. Each with the table that it reaches. Every name is qualified: it is asked with the writer's search_path.
WITH RECURSIVE reach (relation, name) AS (
    SELECT c.oid, c.relname
    FROM pg_catalog.pg_class AS c
    WHERE c.relname OPERATOR(pg_catalog.=) ANY (%(names)s::pg_catalog.name[])
      AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::pg_catalog."char"[])
    UNION
    SELECT found.relation, r.name
    FROM reach AS r
    CROSS JOIN LATERAL (
        SELECT i.inhrelid AS relation
        FROM pg_catalog.pg_inherits AS i
        WHERE i.inhparent OPERATOR(pg_catalog.=) r.relation
        UNION
        SELECT k.confrelid
        FROM pg_catalog.pg_constraint AS k
        WHERE k.contype OPERATOR(pg_catalog.=) 'f'::pg_catalog."char"
          AND k.conrelid OPERATOR(pg_catalog.=) r.relation
          AND (
              k.confdeltype OPERATOR(pg_catalog.=) ANY ('{c,n,d}'::pg_catalog."char"[])
              OR k.confupdtype OPERATOR(pg_catalog.=) ANY ('{c,n,d}'::pg_catalog."char"[])
          )
    ) AS found
)
SELECT c.relname::pg_catalog.text, r.name::pg_catalog.text
FROM reach AS r
JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) r.relation

-- name: discard_buffered
SELECT count(*) FROM {home}.bulksafe_take(%s::pg_catalog.oid, %s::pg_catalog."char", 0::pg_catalog.int8)
