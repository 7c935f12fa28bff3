-- What bulksafe's own objects are like, and who may do what with them. Asked by “migrate” and “doctor”.

-- name: home
-- The schema of bulksafe's own tables: the first on the path that has an outbox. The temporary schema, which any
-- session has in front without naming it, is left out.
SELECT n.nspname
FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS s (name, number)
JOIN pg_catalog.pg_namespace AS n ON n.nspname = s.name
JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = %(table)s
WHERE n.oid <> pg_catalog.pg_my_temp_schema()
ORDER BY s.number
LIMIT 1

-- name: shadows
-- Objects of our names that a session would find in place of ours, for its search_path has their schema in front.
SELECT pg_catalog.pg_describe_object(o.class, o.oid, 0), o.owner::regrole::text
FROM (
    SELECT 'pg_class'::regclass AS class, oid, relname AS name, relowner AS owner, relnamespace AS schema
    FROM pg_catalog.pg_class
    UNION ALL
    SELECT 'pg_proc'::regclass, oid, proname, proowner, pronamespace
    FROM pg_catalog.pg_proc
) AS o
JOIN pg_catalog.pg_namespace AS n ON n.oid = o.schema
WHERE o.name::text = ANY (%(names)s)
  AND n.nspname = ANY (current_schemas(true))
  AND array_position(current_schemas(true), n.nspname) < array_position(current_schemas(true), %(home)s::name)
ORDER BY 1

-- name: owners
-- Who owns each of our objects, and whether the session's role need trust that owner: itself, a role that it belongs
-- to, a superuser, the owner of the database, of the schema, or of a table whose changes are captured.
SELECT pg_catalog.pg_describe_object(o.class, o.oid, 0), r.rolname::text,
       r.rolsuper OR r.oid IN (me.oid, d.datdba, n.nspowner)
       OR (NOT me.rolsuper AND pg_has_role(me.oid, r.oid, 'MEMBER'))
       OR EXISTS (SELECT FROM pg_class AS t WHERE t.oid = ANY (%(tables)s::oid[]) AND t.relowner = r.oid)
FROM (
    SELECT 'pg_class'::regclass AS class, oid, relname AS name, relowner AS owner, relnamespace AS schema
    FROM pg_class
    UNION ALL
    SELECT 'pg_proc'::regclass, oid, proname, proowner, pronamespace
    FROM pg_proc
) AS o
JOIN pg_namespace AS n ON n.oid = o.schema
JOIN pg_roles AS r ON r.oid = o.owner
JOIN pg_roles AS me ON me.rolname = current_user
JOIN pg_database AS d ON d.datname = current_database()
WHERE o.name::text = ANY (%(names)s) AND n.nspname = %(home)s
ORDER BY 1

-- name: shape
-- All that our tables, sequences and functions consist of, a line for each part, without their schema. What a hostile
-- role could have added to a table of hers is here: triggers, rules, policies, parents, defaults. From PostgreSQL 18 on,
-- NOT NULL is a constraint, too, and left out here: the columns have it.
WITH own AS (
    SELECT c.oid, c.relname::text AS name, c.relkind, c.relpersistence, c.relrowsecurity, c.relforcerowsecurity,
           c.relreplident
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(home)s AND c.relname::text = ANY (%(names)s) AND c.relkind NOT IN ('i', 'I')
),
part AS (
    SELECT o.name, format('relation %%s %%s%%s%%s', o.relkind, o.relpersistence,
                          CASE WHEN o.relrowsecurity THEN ', row security' ELSE '' END,
                          CASE WHEN o.relforcerowsecurity THEN ', forced' ELSE '' END) AS line
    FROM own AS o
    UNION ALL
    SELECT o.name, format('column %%s %%s%%s%%s%%s', a.attname, format_type(a.atttypid, a.atttypmod),
                          CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
                          CASE a.attidentity::text WHEN '' THEN '' ELSE ' identity ' || a.attidentity::text END,
                          ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid))
    FROM own AS o
    JOIN pg_attribute AS a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef AS d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
    WHERE o.relkind <> 'S'
    UNION ALL
    SELECT o.name, format('constraint %%s', pg_get_constraintdef(k.oid))
    FROM own AS o
    JOIN pg_constraint AS k ON k.conrelid = o.oid
    WHERE k.contype NOT IN ('n', 't')
    UNION ALL
    SELECT o.name, format('index %%s', pg_get_indexdef(i.indexrelid))
    FROM own AS o
    JOIN pg_index AS i ON i.indrelid = o.oid
    WHERE i.indisvalid
    UNION ALL
    SELECT o.name, format('trigger %%s%%s', pg_get_triggerdef(t.oid), CASE t.tgenabled::text WHEN 'O' THEN '' ELSE ' (' || t.tgenabled::text || ')' END)
    FROM own AS o
    JOIN pg_trigger AS t ON t.tgrelid = o.oid AND NOT t.tgisinternal
    UNION ALL
    SELECT o.name, format('rule %%s', pg_get_ruledef(r.oid))
    FROM own AS o
    JOIN pg_rewrite AS r ON r.ev_class = o.oid
    UNION ALL
    SELECT o.name, format('policy %%s', p.polname)
    FROM own AS o
    JOIN pg_policy AS p ON p.polrelid = o.oid
    UNION ALL
    SELECT o.name, format('child of %%s', i.inhparent::regclass)
    FROM own AS o
    JOIN pg_inherits AS i ON i.inhrelid = o.oid
    UNION ALL
    SELECT o.name, format('parent of %%s', i.inhrelid::regclass)
    FROM own AS o
    JOIN pg_inherits AS i ON i.inhparent = o.oid
    UNION ALL
    SELECT o.name, format('sequence %%s from %%s to %%s start %%s cache %%s%%s', s.seqtypid::regtype, s.seqmin, s.seqmax, s.seqstart,
                          s.seqcache, CASE WHEN s.seqcycle THEN ' cycle' ELSE '' END)
    FROM own AS o
    JOIN pg_sequence AS s ON s.seqrelid = o.oid
    UNION ALL
    SELECT p.proname::text, format('function (%%s) RETURNS %%s %%s%%s%%s %%s', pg_get_function_identity_arguments(p.oid),
                                   pg_get_function_result(p.oid), l.lanname,
                                   CASE WHEN p.prosecdef THEN ' SECURITY DEFINER' ELSE '' END,
                                   ' SET ' || array_to_string(p.proconfig, ' '), md5(replace(p.prosrc, quote_ident(%(home)s) || '.', '')))
    FROM pg_proc AS p
    JOIN pg_namespace AS n ON n.oid = p.pronamespace
    JOIN pg_language AS l ON l.oid = p.prolang
    WHERE n.nspname = %(home)s AND p.proname::text = ANY (%(names)s)
)
SELECT name, replace(line, quote_ident(%(home)s) || '.', '') AS line
FROM part
ORDER BY name COLLATE "C", line COLLATE "C"

-- name: privileges
-- What roles other than the owner may do with our objects: kind, name, role, privilege.
SELECT a.kind, a.name, a.object, a.owner::regrole::text,
       CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END,
       a.privilege || CASE WHEN a.grantable THEN ' WITH GRANT OPTION' ELSE '' END
FROM (
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, c.relname::text AS name,
           format('%%I.%%I', n.nspname, c.relname) AS object, c.relowner AS owner, x.grantee,
           x.privilege_type AS privilege, x.is_grantable AS grantable
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL aclexplode(c.relacl) AS x
    WHERE n.nspname = %(home)s AND c.relkind IN ('r', 'p', 'S') AND c.relname::text = ANY (%(names)s)
    UNION ALL
    SELECT 'TABLE', c.relname::text, format('%%I.%%I', n.nspname, c.relname), c.relowner, x.grantee,
           format('%%s (%%I)', x.privilege_type, t.attname), x.is_grantable
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_attribute AS t ON t.attrelid = c.oid
    CROSS JOIN LATERAL aclexplode(t.attacl) AS x
    WHERE n.nspname = %(home)s AND c.relkind IN ('r', 'p') AND c.relname::text = ANY (%(names)s)
    UNION ALL
    SELECT 'FUNCTION', p.proname::text,
           format('%%I.%%I(%%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), p.proowner, x.grantee,
           x.privilege_type, x.is_grantable
    FROM pg_proc AS p
    JOIN pg_namespace AS n ON n.oid = p.pronamespace
    CROSS JOIN LATERAL aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) AS x
    WHERE (n.nspname = %(home)s AND p.proname::text = ANY (%(names)s))
       OR (p.prorettype = 'trigger'::regtype AND p.proname::text = ANY (%(triggers)s))
) AS a
WHERE a.grantee <> a.owner
ORDER BY 3, 5, 6

-- name: unknown_roles
SELECT n.name FROM unnest(%(roles)s::text[]) AS n (name)
WHERE NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname::text = n.name)

-- name: objects
-- Our objects with their kind, name as SQL has it, owner, and whether the session may grant on them.
SELECT a.kind, a.name, a.object, a.owner::regrole::text, pg_has_role(current_user, a.owner, 'USAGE')
FROM (
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, c.relname::text AS name,
           format('%%I.%%I', n.nspname, c.relname) AS object, c.relowner AS owner
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(home)s AND c.relkind IN ('r', 'p', 'S') AND c.relname::text = ANY (%(names)s)
    UNION ALL
    SELECT 'FUNCTION', p.proname::text,
           format('%%I.%%I(%%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), p.proowner
    FROM pg_proc AS p
    JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = %(home)s AND p.proname::text = ANY (%(names)s)
) AS a
ORDER BY 3

-- name: path_dependent
-- Functions of the project that our triggers call and that look their own names up on the writer's search_path: a role
-- that may create functions in any schema, or temporary tables, changes what they do for its own writes.
SELECT DISTINCT t.tgname::text, t.tgrelid::regclass::text, f.oid::regprocedure::text
FROM pg_trigger AS t
JOIN pg_depend AS d ON (d.classid, d.objid, d.refclassid) = ('pg_trigger'::regclass, t.oid, 'pg_proc'::regclass)
JOIN pg_proc AS f ON f.oid = d.refobjid
JOIN pg_language AS l ON l.oid = f.prolang
WHERE t.tgname::text = ANY (%(triggers)s)
  AND f.oid <> t.tgfoid
  AND l.lanname NOT IN ('internal', 'c')
  AND f.prosqlbody IS NULL
  AND NOT EXISTS (SELECT FROM unnest(f.proconfig) AS c (setting) WHERE starts_with(c.setting, 'search_path='))
ORDER BY 1, 3
