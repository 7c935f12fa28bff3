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
SELECT count(*) FROM {home}.bulksafe_take(%s::pg_catalog.oid, %s::pg_catalog."char", 0::pg_catalog.int8, NULL::pg_catalog.int8)

-- name: definitions
-- What the names of a database stand for: the schemas, relations and functions of the project, without those of
-- extensions and bulksafe's own, and what each leads to. Every name is qualified, as above.
WITH own AS (
    SELECT n.oid, n.nspname
    FROM pg_catalog.pg_namespace AS n
    WHERE n.nspname OPERATOR(pg_catalog.!~) '^pg_' AND n.nspname OPERATOR(pg_catalog.<>) 'information_schema'
), functions AS (
    SELECT p.oid, p.proname,
           pg_catalog.concat(
               'LANGUAGE ', l.lanname, ' ', COALESCE(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc)
           ) AS definition
    FROM pg_catalog.pg_proc AS p
    JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang
    JOIN own ON own.oid OPERATOR(pg_catalog.=) p.pronamespace
    WHERE p.prokind OPERATOR(pg_catalog.=) ANY ('{f,p}'::pg_catalog."char"[])
      AND p.prosrc OPERATOR(pg_catalog.!~) 'bulksafe_'
      AND p.proname OPERATOR(pg_catalog.!~) '^bulksafe_'
      AND NOT EXISTS (
          SELECT
          FROM pg_catalog.pg_depend AS d
          WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
            AND d.objid OPERATOR(pg_catalog.=) p.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
      )
), relations AS (
    SELECT c.oid, c.relname, c.relkind
    FROM pg_catalog.pg_class AS c
    JOIN own ON own.oid OPERATOR(pg_catalog.=) c.relnamespace
    WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,S}'::pg_catalog."char"[])
      AND c.relname OPERATOR(pg_catalog.!~) '^bulksafe_'
)
SELECT 'schema'::pg_catalog.text, nspname::pg_catalog.text, ''::pg_catalog.text FROM own
UNION ALL
SELECT CASE WHEN relkind OPERATOR(pg_catalog.=) 'S' THEN 'sequence' ELSE 'table' END, relname::pg_catalog.text, ''
FROM relations
WHERE relkind OPERATOR(pg_catalog.<>) ALL ('{v,m}'::pg_catalog."char"[])
UNION ALL
SELECT 'view', relname::pg_catalog.text, pg_catalog.pg_get_viewdef(oid)
FROM relations
WHERE relkind OPERATOR(pg_catalog.=) ANY ('{v,m}'::pg_catalog."char"[])
UNION ALL
SELECT 'function', proname::pg_catalog.text, definition FROM functions
UNION ALL
SELECT 'trigger', r.relname::pg_catalog.text, f.proname::pg_catalog.text
FROM pg_catalog.pg_trigger AS t
JOIN relations AS r ON r.oid OPERATOR(pg_catalog.=) t.tgrelid
JOIN functions AS f ON f.oid OPERATOR(pg_catalog.=) t.tgfoid
WHERE NOT t.tgisinternal AND t.tgenabled OPERATOR(pg_catalog.<>) 'D'
UNION ALL
SELECT 'action', parent.relname::pg_catalog.text, child.relname::pg_catalog.text
FROM pg_catalog.pg_constraint AS k
JOIN relations AS parent ON parent.oid OPERATOR(pg_catalog.=) k.confrelid
JOIN relations AS child ON child.oid OPERATOR(pg_catalog.=) k.conrelid
WHERE k.contype OPERATOR(pg_catalog.=) 'f'
  AND (
      k.confdeltype OPERATOR(pg_catalog.=) ANY ('{c,n,d}'::pg_catalog."char"[])
      OR k.confupdtype OPERATOR(pg_catalog.=) ANY ('{c,n,d}'::pg_catalog."char"[])
  )
UNION ALL
SELECT 'partition', parent.relname::pg_catalog.text, child.relname::pg_catalog.text
FROM pg_catalog.pg_inherits AS i
JOIN relations AS parent ON parent.oid OPERATOR(pg_catalog.=) i.inhparent
JOIN relations AS child ON child.oid OPERATOR(pg_catalog.=) i.inhrelid

-- name: collectable
-- The tables of these names whose writes can be collected: their first trigger of the rows is bulksafe's own, and no
-- rule and no other statement-level trigger has side effects. Partitions have the triggers of their table.
-- Of the bits of tgtype, 1 is FOR EACH ROW and 2 is BEFORE.
SELECT c.relname::pg_catalog.text
FROM pg_catalog.pg_class AS c
WHERE (
      c.relname OPERATOR(pg_catalog.=) ANY (%(names)s::pg_catalog.name[])
      OR c.oid OPERATOR(pg_catalog.=) ANY (
          SELECT i.inhrelid
          FROM pg_catalog.pg_inherits AS i
          JOIN pg_catalog.pg_class AS p ON p.oid OPERATOR(pg_catalog.=) i.inhparent
          WHERE p.relname OPERATOR(pg_catalog.=) ANY (%(names)s::pg_catalog.name[])
      )
  )
  AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::pg_catalog."char"[])
  AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_rewrite AS w WHERE w.ev_class OPERATOR(pg_catalog.=) c.oid
  )
  AND EXISTS (
      SELECT FROM pg_catalog.pg_trigger AS t
      WHERE t.tgrelid OPERATOR(pg_catalog.=) c.oid AND t.tgname OPERATOR(pg_catalog.~) '^!bulksafe_.*_stage$'
        AND t.tgenabled OPERATOR(pg_catalog.=) ANY ('{O,A}'::pg_catalog."char"[])
  )
  AND NOT EXISTS (
      SELECT
      FROM pg_catalog.pg_trigger AS t
      JOIN pg_catalog.pg_proc AS f ON f.oid OPERATOR(pg_catalog.=) t.tgfoid
      WHERE t.tgrelid OPERATOR(pg_catalog.=) c.oid
        AND NOT t.tgisinternal
        AND t.tgenabled OPERATOR(pg_catalog.<>) 'D'::pg_catalog."char"
        AND f.prosrc OPERATOR(pg_catalog.!~) 'bulksafe'
        AND (
            t.tgtype OPERATOR(pg_catalog.&) 1::pg_catalog.int2 OPERATOR(pg_catalog.=) 0::pg_catalog.int2
            OR (
                t.tgtype OPERATOR(pg_catalog.&) 2::pg_catalog.int2 OPERATOR(pg_catalog.<>) 0::pg_catalog.int2
                AND t.tgname OPERATOR(pg_catalog.<) '!bulksafe'::pg_catalog.name
            )
        )
  )

-- name: columns
-- The columns of a table that an INSERT may name.
SELECT a.attname::pg_catalog.text
FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid OPERATOR(pg_catalog.=) %s::pg_catalog.regclass
  AND a.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2
  AND NOT a.attisdropped
  AND a.attgenerated OPERATOR(pg_catalog.=) ''::pg_catalog."char"
ORDER BY a.attnum
