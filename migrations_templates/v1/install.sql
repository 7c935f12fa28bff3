-- The body of the DO block that installs one invariant.
--
-- The table is looked up on the caller's search_path, as Django does. Everything else is resolved with
-- a path of pg_catalog, the schemas that the table's own types and collations live in, and what
-- BULKSAFE["SEARCH_PATH"] adds, so that no function or operator of another schema can take part.
--
-- Arguments of every format(): 1 table, 2 its schema, 3 the search path, 4 the parameters of a function
-- over the columns that are read, 5 the same columns of the new row as its arguments, 6 the computed
-- column's type, 7 the same with its precision and how to compare it, 8 the body of a function, which
-- the server quotes, since only it has the names that its format() has inserted, 9 how the computed column is
-- made into text for comparison, where its type needs that, 10 the schema of the outbox.

DECLARE
    caller_path CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
    target CONSTANT pg_catalog.regclass := :'table';
    -- Without the temporary schema, which any session has in front.
    schemas CONSTANT pg_catalog.name[] := pg_catalog.current_schemas(false);
    home pg_catalog.name;
    path pg_catalog.text;
    parameters pg_catalog.text;
    arguments pg_catalog.text;
    result_type pg_catalog.text;
    stored_type pg_catalog.text;
    body pg_catalog.text;
    as_text pg_catalog.text;
    intruder pg_catalog.record;
    partitioned pg_catalog.bool;
    outbox pg_catalog.name;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

    SELECT n.nspname INTO outbox
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relname = 'bulksafe_outbox' AND n.nspname = ANY (schemas) AND n.oid <> pg_my_temp_schema()
    ORDER BY array_position(schemas, n.nspname)
    LIMIT 1;

    SELECT n.nspname, c.relkind = 'p' INTO STRICT home, partitioned
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = target;

    SELECT concat_ws(', ', 'pg_catalog', string_agg(quote_ident(s.nspname), ', ' ORDER BY s.nspname),
                     NULLIF(:'search_path', ''), 'pg_temp') INTO path
    FROM (
        SELECT n.nspname
        FROM pg_attribute AS a
        JOIN pg_type AS t ON t.oid = a.atttypid
        JOIN pg_namespace AS n ON n.oid = t.typnamespace
        WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped
        UNION
        SELECT n.nspname
        FROM pg_attribute AS a
        JOIN pg_collation AS o ON o.oid = a.attcollation
        JOIN pg_namespace AS n ON n.oid = o.collnamespace
        WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped
    ) AS s
    WHERE s.nspname <> 'pg_catalog';

    SELECT string_agg(format('%I %I.%I', a.attname, n.nspname, t.typname), ', ' ORDER BY a.attnum),
           string_agg(format('new.%I::%I.%I', a.attname, n.nspname, t.typname), ', ' ORDER BY a.attnum)
    INTO parameters, arguments
    FROM pg_attribute AS a
    JOIN pg_type AS t ON t.oid = a.atttypid
    JOIN pg_namespace AS n ON n.oid = t.typnamespace
    WHERE a.attrelid = target AND a.attname::text = ANY (:reads);

    -- Some types take different values for equal, or do not compare at all: their text is compared.
    SELECT CASE WHEN ltrim(b.typname, '_') IN (
                    'citext', 'json', 'xml', 'point', 'line', 'lseg', 'box', 'path', 'polygon', 'circle'
                )
                THEN '::pg_catalog.text' || CASE WHEN starts_with(b.typname, '_') THEN '[]' ELSE '' END
                ELSE ''
           END
    INTO as_text
    FROM pg_attribute AS a
    JOIN pg_type AS t ON t.oid = a.atttypid
    JOIN pg_type AS b ON b.oid = COALESCE(NULLIF(t.typbasetype, 0), t.oid)
    WHERE a.attrelid = target AND a.attname::text = :'column';

    -- A length is left out: a cast would cut what an assignment refuses. Text is compared as it is, not
    -- as a collation sees it, for which two spellings may be equal.
    SELECT format('%I.%I', n.nspname, t.typname),
           CASE WHEN t.typname IN ('varchar', 'bpchar', 'bit', 'varbit', '_varchar', '_bpchar', '_bit', '_varbit')
                THEN format('%I.%I', n.nspname, t.typname)
                ELSE format_type(a.atttypid, a.atttypmod)
           END || as_text || CASE WHEN a.attcollation = 0 AND as_text = '' THEN '' ELSE ' COLLATE "C"' END
    INTO result_type, stored_type
    FROM pg_attribute AS a
    JOIN pg_type AS t ON t.oid = a.atttypid
    JOIN pg_namespace AS n ON n.oid = t.typnamespace
    WHERE a.attrelid = target AND a.attname::text = :'column';

    PERFORM set_config('search_path', path, true);
    BEGIN
:statements
    EXCEPTION WHEN undefined_function OR undefined_object THEN
        RAISE EXCEPTION USING
            ERRCODE = SQLSTATE,
            MESSAGE = SQLERRM,
            HINT = pg_catalog.concat('Looked for in: ', path, '. If it lives in another schema, add that to BULKSAFE["SEARCH_PATH"] '
                          'in the settings, run makemigrations again and see who may create objects there.');
    END;

    -- A trigger needs no right on its function, and with one, others could make triggers with it: on a view of
    -- theirs, it would do what the view says. ALTER DEFAULT PRIVILEGES may have given it to any role.
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    FOR intruder IN
        SELECT p.oid::regprocedure AS function, g.grantee
        FROM pg_proc AS p
        JOIN pg_namespace AS n ON n.oid = p.pronamespace
        CROSS JOIN LATERAL (
            SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee
            FROM aclexplode(p.proacl) AS a
            WHERE a.grantee <> p.proowner
        ) AS g
        WHERE n.nspname = home AND p.proname::text = ANY (:functions) AND p.prorettype = 'trigger'::regtype
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %s CASCADE', intruder.function, intruder.grantee);
    END LOOP;

    -- A function that takes a column's very type is preferred to one of pg_catalog that takes a wider one
    -- (CVE-2018-1058), and the schemas of types may be open to others.
:intruders

    PERFORM set_config('search_path', caller_path, true);
END
