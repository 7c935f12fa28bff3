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
    WHERE p.proname::text = ANY (ARRAY['pgtrigger_drafts_only_77c86', 'bulksafe_drafts_only_77c86_rule', 'bulksafe_drafts_only_77c86_truncate']::pg_catalog.text[])
      AND (
          n.nspname = COALESCE(
              (SELECT m.nspname FROM pg_class AS c JOIN pg_namespace AS m ON m.oid = c.relnamespace WHERE c.oid = target),
              home
          )
          -- A table that was moved to another schema has left its functions behind.
          OR n.oid IN (
              SELECT f.pronamespace FROM pg_trigger AS t JOIN pg_proc AS f ON f.oid = t.tgfoid
              WHERE t.tgrelid = target AND f.proname::text = ANY (ARRAY['pgtrigger_drafts_only_77c86', 'bulksafe_drafts_only_77c86_rule', 'bulksafe_drafts_only_77c86_truncate']::pg_catalog.text[])
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
    WHERE a.attrelid = target AND a.attname::text = ANY (ARRAY['status']::pg_catalog.text[]);

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
IF outbox IS NULL OR to_regclass(format('%I.bulksafe_violation', outbox)) IS NULL THEN
            RAISE EXCEPTION USING
                ERRCODE = 'undefined_table',
                MESSAGE = 'bulksafe''s table of violations is missing in this database',
                HINT = 'Run “manage.py migrate bulksafe” first, or add a dependency on bulksafe to the migration.';
        END IF;
        FOR intruder IN
            SELECT o.relowner::regrole AS owner
            FROM pg_class AS o
            JOIN pg_class AS c ON c.oid = target
            JOIN pg_roles AS r ON r.oid = o.relowner
            JOIN pg_roles AS me ON me.rolname = current_user
            WHERE o.oid = to_regclass(format('%I.bulksafe_violation', outbox))
              AND NOT (
                  r.rolsuper OR o.relowner = c.relowner OR r.oid = me.oid
                  OR (NOT me.rolsuper AND pg_has_role(me.oid, r.oid, 'MEMBER'))
              )
        LOOP
            RAISE EXCEPTION USING
                ERRCODE = 'insufficient_privilege',
                MESSAGE = format('bulksafe''s table of violations belongs to %s', intruder.owner),
                HINT = 'If it is not yours, a table of this name comes first on the search_path: drop it.';
        END LOOP;

body := pg_catalog.format($body$
DECLARE
    subject jsonb;
BEGIN
    IF (current_setting('bulksafe.recorded_' || md5('shop.Order:drafts_only'), true) IS DISTINCT FROM 'full' AND (
        COALESCE(current_setting('bulksafe.muted', true), '') || COALESCE(current_setting('pgtrigger.ignore', true), '') = ''
        OR NOT (
            COALESCE(NULLIF(current_setting('bulksafe.muted', true), ''), '{}')::text[] && ARRAY['shop.Order:drafts_only', '*']
            OR 'pgtrigger_drafts_only_77c86' = ANY (string_to_array(btrim(COALESCE(current_setting('pgtrigger.ignore', true), ''), '{}'), ','))
        )
    )) THEN
        subject := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
        PERFORM %10$I.bulksafe_record(
            'shop.Order:drafts_only', 'rule', COALESCE(pg_partition_root(TG_RELID), TG_RELID), left(TG_OP, 1)::"char",
            concat('id=', subject ->> 'id'), to_jsonb(OLD), to_jsonb(NEW), NULLIF(current_setting('bulksafe.context', true), '')::jsonb
        );
    END IF;
    RETURN NEW;
END
$body$, target, home, path, parameters, arguments, result_type, stored_type, NULL, NULL, outbox);
EXECUTE pg_catalog.format($ddl$
CREATE FUNCTION %2$I."pgtrigger_drafts_only_77c86"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
AS %8$L;
REVOKE ALL ON FUNCTION %2$I."pgtrigger_drafts_only_77c86" FROM PUBLIC;
$ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text);

EXECUTE pg_catalog.format($ddl$
CREATE FUNCTION %2$I."bulksafe_drafts_only_77c86_rule"(%4$s) RETURNS boolean
LANGUAGE sql
RETURN NOT ("status" = 'draft');
$ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text);

body := pg_catalog.format($body$
DECLARE
    subject jsonb;
BEGIN
    FOR subject IN EXECUTE format($query$
SELECT to_jsonb("old".*) FROM ONLY %%1$s AS "old" WHERE %%2$I."bulksafe_drafts_only_77c86_rule"("status" => "old"."status")
$query$, TG_RELID::regclass, %2$L) LOOP
        EXIT WHEN NOT (current_setting('bulksafe.recorded_' || md5('shop.Order:drafts_only'), true) IS DISTINCT FROM 'full' AND (
        COALESCE(current_setting('bulksafe.muted', true), '') || COALESCE(current_setting('pgtrigger.ignore', true), '') = ''
        OR NOT (
            COALESCE(NULLIF(current_setting('bulksafe.muted', true), ''), '{}')::text[] && ARRAY['shop.Order:drafts_only', '*']
            OR 'pgtrigger_drafts_only_77c86' = ANY (string_to_array(btrim(COALESCE(current_setting('pgtrigger.ignore', true), ''), '{}'), ','))
        )
    ));
        PERFORM %10$I.bulksafe_record(
            'shop.Order:drafts_only', 'rule', COALESCE(pg_partition_root(TG_RELID), TG_RELID), left(TG_OP, 1)::"char",
            concat('id=', subject ->> 'id'), subject, NULL, NULLIF(current_setting('bulksafe.context', true), '')::jsonb
        );
    END LOOP;
    RETURN NULL;
END
$body$, target, home, path, parameters, arguments, result_type, stored_type, NULL, NULL, outbox);
EXECUTE pg_catalog.format($ddl$
CREATE FUNCTION %2$I."bulksafe_drafts_only_77c86_truncate"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
AS %8$L;
REVOKE ALL ON FUNCTION %2$I."bulksafe_drafts_only_77c86_truncate" FROM PUBLIC;
$ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text);

EXECUTE pg_catalog.format($ddl$
CREATE TRIGGER "pgtrigger_drafts_only_77c86"
    AFTER DELETE ON %1$s
    FOR EACH ROW
    WHEN (NOT ("old"."status" = 'draft'))
    EXECUTE FUNCTION %2$I."pgtrigger_drafts_only_77c86"();
COMMENT ON TRIGGER "pgtrigger_drafts_only_77c86" ON %1$s IS 'bulksafe:31e926a09489058bd309d13a8d7ba26629d0ce8c';
$ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text);

EXECUTE pg_catalog.format($ddl$
CREATE TRIGGER "bulksafe_drafts_only_77c86_truncate"
    BEFORE TRUNCATE ON %1$s
    FOR EACH STATEMENT
    WHEN ((
        COALESCE(current_setting('bulksafe.muted', true), '') || COALESCE(current_setting('pgtrigger.ignore', true), '') = ''
        OR NOT (
            COALESCE(NULLIF(current_setting('bulksafe.muted', true), ''), '{}')::text[] && ARRAY['shop.Order:drafts_only', '*']
            OR 'pgtrigger_drafts_only_77c86' = ANY (string_to_array(btrim(COALESCE(current_setting('pgtrigger.ignore', true), ''), '{}'), ','))
        )
    ))
    EXECUTE FUNCTION %2$I."bulksafe_drafts_only_77c86_truncate"();
COMMENT ON TRIGGER "bulksafe_drafts_only_77c86_truncate" ON %1$s IS 'bulksafe:31e926a09489058bd309d13a8d7ba26629d0ce8c';
$ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text);
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
        WHERE n.nspname = home AND p.proname::text = ANY (ARRAY['pgtrigger_drafts_only_77c86', 'bulksafe_drafts_only_77c86_rule', 'bulksafe_drafts_only_77c86_truncate']::pg_catalog.text[]) AND p.prorettype = 'trigger'::regtype
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
                WHERE p.proname::text = ANY (ARRAY['pgtrigger_drafts_only_77c86', 'bulksafe_drafts_only_77c86_rule', 'bulksafe_drafts_only_77c86_truncate']::pg_catalog.text[]) AND p.pronamespace = c.relnamespace
                UNION ALL
                SELECT 'pg_trigger'::regclass, t.oid FROM pg_trigger AS t
                WHERE t.tgrelid = target AND t.tgname::text = ANY (ARRAY['pgtrigger_drafts_only_77c86', 'bulksafe_drafts_only_77c86_truncate']::pg_catalog.text[])
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
    WHERE p.proname::text = ANY (ARRAY['pgtrigger_drafts_only_77c86', 'bulksafe_drafts_only_77c86_rule', 'bulksafe_drafts_only_77c86_truncate']::pg_catalog.text[])
      AND (
          n.nspname = COALESCE(
              (SELECT m.nspname FROM pg_class AS c JOIN pg_namespace AS m ON m.oid = c.relnamespace WHERE c.oid = target),
              home
          )
          -- A table that was moved to another schema has left its functions behind.
          OR n.oid IN (
              SELECT f.pronamespace FROM pg_trigger AS t JOIN pg_proc AS f ON f.oid = t.tgfoid
              WHERE t.tgrelid = target AND f.proname::text = ANY (ARRAY['pgtrigger_drafts_only_77c86', 'bulksafe_drafts_only_77c86_rule', 'bulksafe_drafts_only_77c86_truncate']::pg_catalog.text[])
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
