DO $bulksafe$DECLARE
    caller_path CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
    target CONSTANT pg_catalog.regclass := pg_catalog.to_regclass('"Sales Orders"');
    home CONSTANT pg_catalog.name := pg_catalog.current_schema();
    owned pg_catalog.oid[];
    item pg_catalog.record;
    waiting pg_catalog.text;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

    SELECT array_agg(p.oid) INTO owned
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE p.proname::text = ANY (ARRAY['pgtrigger_transition_status_da39b']::pg_catalog.text[])
      AND (
          n.nspname = COALESCE(
              (SELECT m.nspname FROM pg_class AS c JOIN pg_namespace AS m ON m.oid = c.relnamespace WHERE c.oid = target),
              home
          )
          -- A table that was moved to another schema has left its functions behind.
          OR n.oid IN (
              SELECT f.pronamespace FROM pg_trigger AS t JOIN pg_proc AS f ON f.oid = t.tgfoid
              WHERE t.tgrelid = target AND f.proname::text = ANY (ARRAY['pgtrigger_transition_status_da39b']::pg_catalog.text[])
          )
      );

    FOR item IN
        SELECT t.tgname, t.tgrelid::regclass AS tgtable
        FROM pg_trigger AS t
        WHERE t.tgfoid = ANY (owned) AND t.tgparentid = 0
        ORDER BY t.tgname
    LOOP
        -- PostgreSQL drops no trigger from a table that has deferred events waiting: they are judged now.
        -- Those of other tables stay deferred.
        SELECT string_agg(DISTINCT format('%I.%I', n.nspname, o.conname), ', ') INTO waiting
        FROM pg_trigger AS t
        JOIN pg_constraint AS o ON o.oid = t.tgconstraint
        JOIN pg_namespace AS n ON n.oid = o.connamespace
        WHERE t.tgrelid = item.tgtable AND t.tgdeferrable;
        IF waiting IS NOT NULL THEN
            EXECUTE format('SET CONSTRAINTS %s IMMEDIATE', waiting);
        END IF;
        EXECUTE format('DROP TRIGGER %I ON %s', item.tgname, item.tgtable);
    END LOOP;

    FOR item IN SELECT p.oid::regprocedure AS signature FROM pg_proc AS p WHERE p.oid = ANY (owned)
    LOOP
        EXECUTE format('DROP FUNCTION %s', item.signature);
    END LOOP;

    PERFORM set_config('search_path', caller_path, true);
END$bulksafe$;
DO $bulksafe$DECLARE
    caller_path CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
    target CONSTANT pg_catalog.regclass := '"Sales Orders"';
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
                     NULLIF('', ''), 'pg_temp') INTO path
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
    WHERE a.attrelid = target AND a.attname::text = ANY (ARRAY[]::pg_catalog.text[]);

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
    WHERE a.attrelid = target AND a.attname::text = '';

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
    WHERE a.attrelid = target AND a.attname::text = '';

    PERFORM set_config('search_path', path, true);
    BEGIN
body := pg_catalog.format($body$
DECLARE
    subject jsonb;
BEGIN
    -- Checked here and not in the WHEN clause, which PostgreSQL parses again for every statement.
    IF NOT (
        COALESCE(current_setting('bulksafe.muted', true), '') || COALESCE(current_setting('pgtrigger.ignore', true), '') = ''
        OR NOT (
            COALESCE(NULLIF(current_setting('bulksafe.muted', true), ''), '{}')::text[] && ARRAY['shop.Order:transition_status', '*']
            OR 'pgtrigger_transition_status_da39b' = ANY (string_to_array(btrim(COALESCE(current_setting('pgtrigger.ignore', true), ''), '{}'), ','))
        )
    ) THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'DELETE' THEN
        subject := to_jsonb(OLD);
    ELSE
        subject := to_jsonb(NEW);
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'check_violation',
        MESSAGE = CASE
        WHEN (
                SELECT bool_and(has_column_privilege((CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role')::name END), c.oid, k.number, 'SELECT'))
                    AND (NOT c.relrowsecurity OR r.rolsuper OR r.rolbypassrls
                         OR (pg_has_role(r.oid, c.relowner, 'USAGE') AND NOT c.relforcerowsecurity))
                FROM pg_class AS c
                JOIN pg_roles AS r ON r.rolname = (CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role')::name END)
                JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisprimary
                CROSS JOIN unnest(i.indkey::int2[]) AS k (number)
                WHERE c.oid = COALESCE(pg_partition_root(TG_RELID), TG_RELID)
                GROUP BY c.oid, c.relrowsecurity, c.relowner, c.relforcerowsecurity, r.oid, r.rolsuper, r.rolbypassrls
            )
            AND has_column_privilege((CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role')::name END), COALESCE(pg_partition_root(TG_RELID), TG_RELID), 'status', 'SELECT')
        THEN (
            SELECT concat(
                '“', 'status', '” cannot ', CASE TG_OP WHEN 'INSERT' THEN 'start with ' ELSE 'change from ' END,
                string_agg(
                    COALESCE('“' || CASE WHEN length(state) > 64 THEN left(state, 63) || '…' ELSE state END || '”', 'no value'),
                    ' to ' ORDER BY place
                ),
                '.'
            )
            FROM (
                VALUES (1, to_jsonb(OLD) ->> 'status'), (2, to_jsonb(NEW) ->> 'status')
            ) AS states (place, state)
            WHERE place = 2 OR TG_OP = 'UPDATE'
        )
        ELSE 'This change of “status” is not allowed.'
    END,
        DETAIL = concat(
            'Invariant ', 'shop.Order:transition_status', ' refuses the ', TG_OP, ' of ',
            CASE WHEN (
                SELECT bool_and(has_column_privilege((CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role')::name END), c.oid, k.number, 'SELECT'))
                    AND (NOT c.relrowsecurity OR r.rolsuper OR r.rolbypassrls
                         OR (pg_has_role(r.oid, c.relowner, 'USAGE') AND NOT c.relforcerowsecurity))
                FROM pg_class AS c
                JOIN pg_roles AS r ON r.rolname = (CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role')::name END)
                JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisprimary
                CROSS JOIN unnest(i.indkey::int2[]) AS k (number)
                WHERE c.oid = COALESCE(pg_partition_root(TG_RELID), TG_RELID)
                GROUP BY c.oid, c.relrowsecurity, c.relowner, c.relforcerowsecurity, r.oid, r.rolsuper, r.rolbypassrls
            ) THEN concat('the row with ', 'id=', subject ->> 'id') ELSE 'a row' END, '.'
        ),
        SCHEMA = TG_TABLE_SCHEMA,
        TABLE = TG_TABLE_NAME,
        CONSTRAINT = 'transition_status';
END
$body$, target, home, path, parameters, arguments, result_type, stored_type);
EXECUTE pg_catalog.format($ddl$
CREATE FUNCTION %2$I."pgtrigger_transition_status_da39b"() RETURNS trigger
LANGUAGE plpgsql 
SET search_path = pg_catalog, pg_temp
SET row_security = off
AS %8$L;
REVOKE ALL ON FUNCTION %2$I."pgtrigger_transition_status_da39b" FROM PUBLIC;
$ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text);

EXECUTE pg_catalog.format($ddl$
CREATE TRIGGER "pgtrigger_transition_status_da39b"
    AFTER UPDATE ON %1$s
    FOR EACH ROW
    WHEN ("old"."status" IS DISTINCT FROM "new"."status" AND NOT (((COALESCE("old"."status" IN ('draft'), false)) AND (COALESCE("new"."status" IN ('paid'), false))) OR (NOT (COALESCE("old"."status" IN ('draft', 'paid'), false)) AND (COALESCE("new"."status" IN ('draft', 'paid'), false)))))
    EXECUTE FUNCTION %2$I."pgtrigger_transition_status_da39b"();
COMMENT ON TRIGGER "pgtrigger_transition_status_da39b" ON %1$s IS 'bulksafe:7c4231ba466581c5b50fc73a2e5834ca15569b61';
$ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text);

IF partitioned THEN
            EXECUTE pg_catalog.format($ddl$
CREATE TRIGGER "zz_bulksafe_transition_status_da39b_move"
    BEFORE UPDATE ON %1$s
    FOR EACH ROW
    WHEN ("old"."status" IS DISTINCT FROM "new"."status" AND NOT (((COALESCE("old"."status" IN ('draft'), false)) AND (COALESCE("new"."status" IN ('paid'), false))) OR (NOT (COALESCE("old"."status" IN ('draft', 'paid'), false)) AND (COALESCE("new"."status" IN ('draft', 'paid'), false)))))
    EXECUTE FUNCTION %2$I."pgtrigger_transition_status_da39b"();
COMMENT ON TRIGGER "zz_bulksafe_transition_status_da39b_move" ON %1$s IS 'bulksafe:7c4231ba466581c5b50fc73a2e5834ca15569b61';
$ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text);
        END IF;
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
        WHERE n.nspname = home AND p.proname::text = ANY (ARRAY['pgtrigger_transition_status_da39b']::pg_catalog.text[]) AND p.prorettype = 'trigger'::regtype
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %s CASCADE', intruder.function, intruder.grantee);
    END LOOP;

    -- A function that takes a column's very type is preferred to one of pg_catalog that takes a wider one
    -- (CVE-2018-1058), and the schemas of types may be open to others.
FOR intruder IN
        SELECT pg_describe_object(d.refclassid, d.refobjid, 0) AS object, o.owner::regrole AS owner
        FROM pg_depend AS d
        JOIN (
            SELECT 'pg_proc'::regclass AS class, oid, proowner AS owner, pronamespace AS namespace FROM pg_proc
            UNION ALL
            SELECT 'pg_operator'::regclass, oid, oprowner, oprnamespace FROM pg_operator
        ) AS o ON o.class = d.refclassid AND o.oid = d.refobjid
        JOIN pg_namespace AS n ON n.oid = o.namespace
        JOIN pg_roles AS r ON r.oid = o.owner
        JOIN pg_class AS c ON c.oid = target
        WHERE (d.classid, d.objid) IN (
                SELECT 'pg_proc'::regclass, p.oid FROM pg_proc AS p
                WHERE p.proname::text = ANY (ARRAY['pgtrigger_transition_status_da39b']::pg_catalog.text[]) AND p.pronamespace = c.relnamespace
                UNION ALL
                SELECT 'pg_trigger'::regclass, t.oid FROM pg_trigger AS t
                WHERE t.tgrelid = target AND t.tgname::text = ANY (ARRAY['pgtrigger_transition_status_da39b', 'zz_bulksafe_transition_status_da39b_move']::pg_catalog.text[])
            )
            AND NOT (r.rolsuper OR r.rolname = current_user OR o.owner = c.relowner)
            AND n.nspname::text <> ALL (ARRAY[]::pg_catalog.text[])
            AND NOT EXISTS (
                SELECT FROM pg_depend AS e
                WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e'
            )
    LOOP
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege',
            MESSAGE = format('the %s would use %s, which belongs to %s', 'invariant', intruder.object, intruder.owner),
            HINT = 'Drop it, or add its schema to BULKSAFE["SEARCH_PATH"] in the settings if you trust all who may '
                   'create objects there.';
    END LOOP;

    PERFORM set_config('search_path', caller_path, true);
END$bulksafe$;

-- uninstall

DO $bulksafe$DECLARE
    caller_path CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
    target CONSTANT pg_catalog.regclass := pg_catalog.to_regclass('"Sales Orders"');
    home CONSTANT pg_catalog.name := pg_catalog.current_schema();
    owned pg_catalog.oid[];
    item pg_catalog.record;
    waiting pg_catalog.text;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

    SELECT array_agg(p.oid) INTO owned
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE p.proname::text = ANY (ARRAY['pgtrigger_transition_status_da39b']::pg_catalog.text[])
      AND (
          n.nspname = COALESCE(
              (SELECT m.nspname FROM pg_class AS c JOIN pg_namespace AS m ON m.oid = c.relnamespace WHERE c.oid = target),
              home
          )
          -- A table that was moved to another schema has left its functions behind.
          OR n.oid IN (
              SELECT f.pronamespace FROM pg_trigger AS t JOIN pg_proc AS f ON f.oid = t.tgfoid
              WHERE t.tgrelid = target AND f.proname::text = ANY (ARRAY['pgtrigger_transition_status_da39b']::pg_catalog.text[])
          )
      );

    FOR item IN
        SELECT t.tgname, t.tgrelid::regclass AS tgtable
        FROM pg_trigger AS t
        WHERE t.tgfoid = ANY (owned) AND t.tgparentid = 0
        ORDER BY t.tgname
    LOOP
        -- PostgreSQL drops no trigger from a table that has deferred events waiting: they are judged now.
        -- Those of other tables stay deferred.
        SELECT string_agg(DISTINCT format('%I.%I', n.nspname, o.conname), ', ') INTO waiting
        FROM pg_trigger AS t
        JOIN pg_constraint AS o ON o.oid = t.tgconstraint
        JOIN pg_namespace AS n ON n.oid = o.connamespace
        WHERE t.tgrelid = item.tgtable AND t.tgdeferrable;
        IF waiting IS NOT NULL THEN
            EXECUTE format('SET CONSTRAINTS %s IMMEDIATE', waiting);
        END IF;
        EXECUTE format('DROP TRIGGER %I ON %s', item.tgname, item.tgtable);
    END LOOP;

    FOR item IN SELECT p.oid::regprocedure AS signature FROM pg_proc AS p WHERE p.oid = ANY (owned)
    LOOP
        EXECUTE format('DROP FUNCTION %s', item.signature);
    END LOOP;

    PERFORM set_config('search_path', caller_path, true);
END$bulksafe$;
