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
    WHERE p.proname::text = ANY (ARRAY['pgtrigger_bulksafe_capture_54800', 'bulksafe_bulksafe_capture_54800_update', 'bulksafe_bulksafe_capture_54800_delete', 'bulksafe_bulksafe_capture_54800_truncate']::pg_catalog.text[])
      AND (
          n.nspname = COALESCE(
              (SELECT m.nspname FROM pg_class AS c JOIN pg_namespace AS m ON m.oid = c.relnamespace WHERE c.oid = target),
              home
          )
          -- A table that was moved to another schema has left its functions behind.
          OR n.oid IN (
              SELECT f.pronamespace FROM pg_trigger AS t JOIN pg_proc AS f ON f.oid = t.tgfoid
              WHERE t.tgrelid = target AND f.proname::text = ANY (ARRAY['pgtrigger_bulksafe_capture_54800', 'bulksafe_bulksafe_capture_54800_update', 'bulksafe_bulksafe_capture_54800_delete', 'bulksafe_bulksafe_capture_54800_truncate']::pg_catalog.text[])
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
IF outbox IS NULL THEN
            RAISE EXCEPTION USING
                ERRCODE = 'undefined_table',
                MESSAGE = 'bulksafe''s own tables are missing in this database',
                HINT = 'Run “manage.py migrate bulksafe” first, or add a dependency on bulksafe to the migration.';
        END IF;
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        FOR intruder IN
            SELECT o.oid::regclass AS object, o.relowner::regrole AS owner
            FROM pg_class AS o
            JOIN pg_class AS c ON c.oid = target
            JOIN pg_roles AS r ON r.oid = o.relowner
            JOIN pg_roles AS me ON me.rolname = current_user
            JOIN pg_namespace AS n ON n.oid = o.relnamespace
            WHERE n.nspname = outbox
              AND o.relname IN (
                  'bulksafe_outbox', 'bulksafe_outbox_0', 'bulksafe_outbox_1', 'bulksafe_outbox_2',
                  'bulksafe_outbox_seq', 'bulksafe_outbox_slot', 'bulksafe_buffer', 'bulksafe_ticket'
              )
              AND NOT (
                  r.rolsuper OR o.relowner = c.relowner OR r.oid = me.oid
                  OR (NOT me.rolsuper AND pg_has_role(me.oid, r.oid, 'MEMBER'))
              )
        LOOP
            RAISE EXCEPTION USING
                ERRCODE = 'insufficient_privilege',
                MESSAGE = format('bulksafe''s table %s belongs to %s', intruder.object, intruder.owner),
                HINT = 'If it is not yours, a table of this name comes first on the search_path: drop it.';
        END LOOP;
        PERFORM set_config('search_path', path, true);

DECLARE
            given CONSTANT pg_catalog.text[] := ARRAY['("new"."status" = ''50% $off$'' AND NOT (false))']::pg_catalog.text[];
            bound pg_catalog.text[] := '{}';
            condition pg_catalog.text;
            held pg_catalog.regprocedure;
            intruder pg_catalog.record;
        BEGIN
            FOREACH condition IN ARRAY given LOOP
                EXECUTE pg_catalog.format(
                    'CREATE FUNCTION %I.bulksafe_condition("old" %s, "new" %s) RETURNS boolean LANGUAGE sql RETURN (%s) IS TRUE',
                    home, target, target, condition
                );
                PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
                -- With its arguments: another role may have created functions of this name with other ones.
                held := to_regprocedure(format('%I.bulksafe_condition(%s, %s)', home, target, target));
                -- (new).x would be the column "new" where the table has one: it becomes "new".x, except in what is
                -- quoted.
                SELECT bound || string_agg(
                    CASE found.part[1] WHEN '(new).' THEN '"new".' WHEN '(old).' THEN '"old".' ELSE found.part[1] END,
                    '' ORDER BY found.number
                ) INTO bound
                FROM regexp_matches(
                    substr(pg_get_function_sqlbody(held), length('RETURN ')),
                    $re$('(?:[^']|'')*'|"(?:[^"]|"")*"|\(new\)\.|\(old\)\.|.)$re$,
                    'g'
                ) WITH ORDINALITY AS found (part, number);
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
                SELECT 'pg_proc'::regclass, held::oid
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
            MESSAGE = format('the %s would use %s, which belongs to %s', 'condition', intruder.object, intruder.owner),
            HINT = 'Drop it, or add its schema to BULKSAFE["SEARCH_PATH"] in the settings if you trust all who may '
                   'create objects there.';
    END LOOP;
                EXECUTE format('DROP FUNCTION %s', held);
                PERFORM set_config('search_path', path, true);
            END LOOP;
            body := pg_catalog.format(
                $body$
#variable_conflict use_column
<<bulksafe>>
DECLARE
    source CONSTANT regclass := COALESCE(pg_partition_root(TG_RELID), TG_RELID);
    part CONSTANT regclass := TG_RELID;
    depth CONSTANT smallint := pg_trigger_depth();
    context jsonb := NULLIF(current_setting('bulksafe.context', true), '')::jsonb;
    captured boolean := false;
BEGIN
    IF NOT (
        COALESCE(current_setting('bulksafe.muted', true), '') || COALESCE(current_setting('pgtrigger.ignore', true), '') = ''
        OR NOT (
            COALESCE(NULLIF(current_setting('bulksafe.muted', true), ''), '{}')::text[] && ARRAY['shop.Order:bulksafe_capture', '*']
            OR 'pgtrigger_bulksafe_capture_54800' = ANY (string_to_array(btrim(COALESCE(current_setting('pgtrigger.ignore', true), ''), '{}'), ','))
        )
    ) THEN
        RETURN NULL;
    END IF;
    -- Receivers are not called for their own writes: only the application may set the writer.
    IF jsonb_exists(context, 'bulksafe.written_by') AND NOT COALESCE(
        has_function_privilege(
            (CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role')::name END), to_regprocedure(format('%%I.bulksafe_take(oid,"char",bigint,bigint)', %10$L)), 'EXECUTE'
        ),
        false
    ) THEN
        context := context - 'bulksafe.written_by';
    END IF;
    IF TG_LEVEL = 'ROW' THEN
INSERT INTO %10$I.bulksafe_outbox
            (slot, bucket, source, part, operation, depth, key, old, new, matched, context)
        SELECT (SELECT last_value FROM %10$I.bulksafe_outbox_slot), (hashtextextended(k.key, 0) & 15)::smallint,
               bulksafe.source, NULLIF(bulksafe.part, bulksafe.source), 'I', bulksafe.depth, k.key, k.old, k.new, k.matched, bulksafe.context
        FROM (
            SELECT "new"."id"::text AS key, NULL::jsonb AS old, to_jsonb("new".*) AS new, array_remove(ARRAY['#b55152cf65', CASE WHEN %11$s THEN '571ebc1ffd' END], NULL) AS matched
            FROM (VALUES (0)) AS v
            
            WHERE CASE WHEN %11$s THEN true END
        ) AS k;
        captured := captured OR FOUND;
    ELSE
INSERT INTO %10$I.bulksafe_outbox
            (slot, bucket, source, part, operation, depth, key, old, new, matched, context)
        SELECT (SELECT last_value FROM %10$I.bulksafe_outbox_slot), (hashtextextended(k.key, 0) & 15)::smallint,
               bulksafe.source, NULLIF(bulksafe.part, bulksafe.source), 'I', bulksafe.depth, k.key, k.old, k.new, k.matched, bulksafe.context
        FROM (
            SELECT "new"."id"::text AS key, NULL::jsonb AS old, to_jsonb("new".*) AS new, array_remove(ARRAY['#b55152cf65', CASE WHEN %11$s THEN '571ebc1ffd' END], NULL) AS matched
            FROM bulksafe_new AS "new"
            
            WHERE CASE WHEN %11$s THEN true END
        ) AS k;
        captured := captured OR FOUND;
    END IF;
    -- A sleeping listener holds this lock exclusively. An awake one needs no NOTIFY, which would serialize all commits.
    IF captured AND NOT pg_try_advisory_xact_lock_shared(1651862123, 0) THEN
        PERFORM pg_notify('bulksafe', '');
    END IF;
    RETURN NULL;
END
$body$,
                VARIADIC ARRAY[
                    target::pg_catalog.text, home, path, parameters, arguments, result_type, stored_type, NULL, NULL, outbox
                ] || bound
            );
        END;
EXECUTE pg_catalog.format($ddl$
CREATE FUNCTION %2$I."pgtrigger_bulksafe_capture_54800"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off

AS %8$L;
REVOKE ALL ON FUNCTION %2$I."pgtrigger_bulksafe_capture_54800" FROM PUBLIC;
$ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text, outbox);

DECLARE
            given CONSTANT pg_catalog.text[] := ARRAY['("new"."status" = ''50% $off$'' AND NOT ("old"."amount" = 1))']::pg_catalog.text[];
            bound pg_catalog.text[] := '{}';
            condition pg_catalog.text;
            held pg_catalog.regprocedure;
            intruder pg_catalog.record;
        BEGIN
            FOREACH condition IN ARRAY given LOOP
                EXECUTE pg_catalog.format(
                    'CREATE FUNCTION %I.bulksafe_condition("old" %s, "new" %s) RETURNS boolean LANGUAGE sql RETURN (%s) IS TRUE',
                    home, target, target, condition
                );
                PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
                -- With its arguments: another role may have created functions of this name with other ones.
                held := to_regprocedure(format('%I.bulksafe_condition(%s, %s)', home, target, target));
                -- (new).x would be the column "new" where the table has one: it becomes "new".x, except in what is
                -- quoted.
                SELECT bound || string_agg(
                    CASE found.part[1] WHEN '(new).' THEN '"new".' WHEN '(old).' THEN '"old".' ELSE found.part[1] END,
                    '' ORDER BY found.number
                ) INTO bound
                FROM regexp_matches(
                    substr(pg_get_function_sqlbody(held), length('RETURN ')),
                    $re$('(?:[^']|'')*'|"(?:[^"]|"")*"|\(new\)\.|\(old\)\.|.)$re$,
                    'g'
                ) WITH ORDINALITY AS found (part, number);
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
                SELECT 'pg_proc'::regclass, held::oid
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
            MESSAGE = format('the %s would use %s, which belongs to %s', 'condition', intruder.object, intruder.owner),
            HINT = 'Drop it, or add its schema to BULKSAFE["SEARCH_PATH"] in the settings if you trust all who may '
                   'create objects there.';
    END LOOP;
                EXECUTE format('DROP FUNCTION %s', held);
                PERFORM set_config('search_path', path, true);
            END LOOP;
            body := pg_catalog.format(
                $body$
#variable_conflict use_column
<<bulksafe>>
DECLARE
    source CONSTANT regclass := COALESCE(pg_partition_root(TG_RELID), TG_RELID);
    part CONSTANT regclass := TG_RELID;
    depth CONSTANT smallint := pg_trigger_depth();
    context jsonb := NULLIF(current_setting('bulksafe.context', true), '')::jsonb;
    captured boolean := false;
BEGIN
    IF NOT (
        COALESCE(current_setting('bulksafe.muted', true), '') || COALESCE(current_setting('pgtrigger.ignore', true), '') = ''
        OR NOT (
            COALESCE(NULLIF(current_setting('bulksafe.muted', true), ''), '{}')::text[] && ARRAY['shop.Order:bulksafe_capture', '*']
            OR 'pgtrigger_bulksafe_capture_54800' = ANY (string_to_array(btrim(COALESCE(current_setting('pgtrigger.ignore', true), ''), '{}'), ','))
        )
    ) THEN
        RETURN NULL;
    END IF;
    -- Receivers are not called for their own writes: only the application may set the writer.
    IF jsonb_exists(context, 'bulksafe.written_by') AND NOT COALESCE(
        has_function_privilege(
            (CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role')::name END), to_regprocedure(format('%%I.bulksafe_take(oid,"char",bigint,bigint)', %10$L)), 'EXECUTE'
        ),
        false
    ) THEN
        context := context - 'bulksafe.written_by';
    END IF;
    IF TG_LEVEL = 'ROW' THEN
INSERT INTO %10$I.bulksafe_outbox
            (slot, bucket, source, part, operation, depth, key, old, new, matched, context)
        SELECT (SELECT last_value FROM %10$I.bulksafe_outbox_slot), (hashtextextended(k.key, 0) & 15)::smallint,
               bulksafe.source, NULLIF(bulksafe.part, bulksafe.source), 'U', bulksafe.depth, k.key, k.old, k.new, k.matched, bulksafe.context
        FROM (
            SELECT "old"."id"::text AS key, to_jsonb("old".*) AS old, to_jsonb("new".*) AS new, array_remove(ARRAY['#1aeadf0986', CASE WHEN %11$s THEN '205e789efe' END], NULL) AS matched
            FROM (VALUES (0)) AS v
            
            WHERE CASE WHEN %11$s THEN true END
        ) AS k;
        captured := captured OR FOUND;
    ELSE
INSERT INTO %10$I.bulksafe_outbox
            (slot, bucket, source, part, operation, depth, key, old, new, matched, context)
        SELECT (SELECT last_value FROM %10$I.bulksafe_outbox_slot), (hashtextextended(k.key, 0) & 15)::smallint,
               bulksafe.source, NULLIF(bulksafe.part, bulksafe.source), 'U', bulksafe.depth, k.key, k.old, k.new, k.matched, bulksafe.context
        FROM (
            SELECT "old"."id"::text AS key, to_jsonb("old".*) AS old, to_jsonb("new".*) AS new, array_remove(ARRAY['#1aeadf0986', CASE WHEN %11$s THEN '205e789efe' END], NULL) AS matched
            FROM (SELECT row_number() OVER () AS n, "bulksafe#" AS r FROM (SELECT * FROM bulksafe_old) AS "bulksafe#") AS a FULL JOIN (SELECT row_number() OVER () AS n, "bulksafe#" AS r FROM (SELECT * FROM bulksafe_new) AS "bulksafe#") AS b USING (n) CROSS JOIN LATERAL (SELECT (a.r).*) AS "old" CROSS JOIN LATERAL (SELECT (b.r).*) AS "new"
            
            WHERE CASE WHEN %11$s THEN true END
        ) AS k;
        captured := captured OR FOUND;
    END IF;
    -- A sleeping listener holds this lock exclusively. An awake one needs no NOTIFY, which would serialize all commits.
    IF captured AND NOT pg_try_advisory_xact_lock_shared(1651862123, 0) THEN
        PERFORM pg_notify('bulksafe', '');
    END IF;
    RETURN NULL;
END
$body$,
                VARIADIC ARRAY[
                    target::pg_catalog.text, home, path, parameters, arguments, result_type, stored_type, NULL, NULL, outbox
                ] || bound
            );
        END;
EXECUTE pg_catalog.format($ddl$
CREATE FUNCTION %2$I."bulksafe_bulksafe_capture_54800_update"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off

AS %8$L;
REVOKE ALL ON FUNCTION %2$I."bulksafe_bulksafe_capture_54800_update" FROM PUBLIC;
$ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text, outbox);

body := pg_catalog.format($body$
#variable_conflict use_column
<<bulksafe>>
DECLARE
    source CONSTANT regclass := COALESCE(pg_partition_root(TG_RELID), TG_RELID);
    part CONSTANT regclass := TG_RELID;
    depth CONSTANT smallint := pg_trigger_depth();
    context jsonb := NULLIF(current_setting('bulksafe.context', true), '')::jsonb;
    captured boolean := false;
BEGIN
    IF NOT (
        COALESCE(current_setting('bulksafe.muted', true), '') || COALESCE(current_setting('pgtrigger.ignore', true), '') = ''
        OR NOT (
            COALESCE(NULLIF(current_setting('bulksafe.muted', true), ''), '{}')::text[] && ARRAY['shop.Order:bulksafe_capture', '*']
            OR 'pgtrigger_bulksafe_capture_54800' = ANY (string_to_array(btrim(COALESCE(current_setting('pgtrigger.ignore', true), ''), '{}'), ','))
        )
    ) THEN
        RETURN NULL;
    END IF;
    -- Receivers are not called for their own writes: only the application may set the writer.
    IF jsonb_exists(context, 'bulksafe.written_by') AND NOT COALESCE(
        has_function_privilege(
            (CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role')::name END), to_regprocedure(format('%%I.bulksafe_take(oid,"char",bigint,bigint)', %10$L)), 'EXECUTE'
        ),
        false
    ) THEN
        context := context - 'bulksafe.written_by';
    END IF;
    IF TG_LEVEL = 'ROW' THEN
INSERT INTO %10$I.bulksafe_outbox
            (slot, bucket, source, part, operation, depth, key, old, new, matched, context)
        SELECT (SELECT last_value FROM %10$I.bulksafe_outbox_slot), (hashtextextended(k.key, 0) & 15)::smallint,
               bulksafe.source, NULLIF(bulksafe.part, bulksafe.source), 'D', bulksafe.depth, k.key, k.old, k.new, k.matched, bulksafe.context
        FROM (
            SELECT "old"."id"::text AS key, to_jsonb("old".*) AS old, NULL::jsonb AS new, NULL::text[] AS matched
            FROM (VALUES (0)) AS v
            
            WHERE CASE WHEN true THEN true END
        ) AS k;
        captured := captured OR FOUND;
    ELSE
INSERT INTO %10$I.bulksafe_outbox
            (slot, bucket, source, part, operation, depth, key, old, new, matched, context)
        SELECT (SELECT last_value FROM %10$I.bulksafe_outbox_slot), (hashtextextended(k.key, 0) & 15)::smallint,
               bulksafe.source, NULLIF(bulksafe.part, bulksafe.source), 'D', bulksafe.depth, k.key, k.old, k.new, k.matched, bulksafe.context
        FROM (
            SELECT "old"."id"::text AS key, to_jsonb("old".*) AS old, NULL::jsonb AS new, NULL::text[] AS matched
            FROM bulksafe_old AS "old"
            
            WHERE CASE WHEN true THEN true END
        ) AS k;
        captured := captured OR FOUND;
    END IF;
    -- A sleeping listener holds this lock exclusively. An awake one needs no NOTIFY, which would serialize all commits.
    IF captured AND NOT pg_try_advisory_xact_lock_shared(1651862123, 0) THEN
        PERFORM pg_notify('bulksafe', '');
    END IF;
    RETURN NULL;
END
$body$, target, home, path, parameters, arguments, result_type, stored_type, NULL, NULL, outbox);
EXECUTE pg_catalog.format($ddl$
CREATE FUNCTION %2$I."bulksafe_bulksafe_capture_54800_delete"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off

AS %8$L;
REVOKE ALL ON FUNCTION %2$I."bulksafe_bulksafe_capture_54800_delete" FROM PUBLIC;
$ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text, outbox);

body := pg_catalog.format($body$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'check_violation',
        MESSAGE = 'TRUNCATE leaves no rows behind that receivers for deletion could be called for. Delete the rows, or mute the capture for this transaction.',
        DETAIL = concat('Invariant ', 'shop.Order:bulksafe_capture', ' refuses the TRUNCATE of the table.'),
        HINT = concat('with bulksafe.muted(', quote_literal('shop.Order:bulksafe_capture'), '): …, or BULKSAFE["TRUNCATE"] = "allow" in the settings.'),
        SCHEMA = TG_TABLE_SCHEMA,
        TABLE = TG_TABLE_NAME,
        CONSTRAINT = 'bulksafe_capture';
END
$body$, target, home, path, parameters, arguments, result_type, stored_type, NULL, NULL, outbox);
EXECUTE pg_catalog.format($ddl$
CREATE FUNCTION %2$I."bulksafe_bulksafe_capture_54800_truncate"() RETURNS trigger
LANGUAGE plpgsql 
SET search_path = pg_catalog, pg_temp
SET row_security = off
AS %8$L;
REVOKE ALL ON FUNCTION %2$I."bulksafe_bulksafe_capture_54800_truncate" FROM PUBLIC;
$ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text, outbox);

IF partitioned THEN
            EXECUTE pg_catalog.format($partitioned_ddl$
CREATE TRIGGER "pgtrigger_bulksafe_capture_54800"
    AFTER INSERT ON %1$s
    FOR EACH ROW
    EXECUTE FUNCTION %2$I."pgtrigger_bulksafe_capture_54800"();
COMMENT ON TRIGGER "pgtrigger_bulksafe_capture_54800" ON %1$s IS 'bulksafe:64e9f32e75935cf5838efdb03680d1b6499aeaa9';
$partitioned_ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text, outbox);
        ELSE
            EXECUTE pg_catalog.format($ddl$
CREATE TRIGGER "pgtrigger_bulksafe_capture_54800"
    AFTER INSERT ON %1$s
    REFERENCING NEW TABLE AS bulksafe_new
    FOR EACH STATEMENT
    EXECUTE FUNCTION %2$I."pgtrigger_bulksafe_capture_54800"();
COMMENT ON TRIGGER "pgtrigger_bulksafe_capture_54800" ON %1$s IS 'bulksafe:64e9f32e75935cf5838efdb03680d1b6499aeaa9';
$ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text, outbox);
        END IF;

IF partitioned THEN
            EXECUTE pg_catalog.format($partitioned_ddl$
CREATE TRIGGER "bulksafe_bulksafe_capture_54800_update"
    AFTER UPDATE ON %1$s
    FOR EACH ROW
    EXECUTE FUNCTION %2$I."bulksafe_bulksafe_capture_54800_update"();
COMMENT ON TRIGGER "bulksafe_bulksafe_capture_54800_update" ON %1$s IS 'bulksafe:64e9f32e75935cf5838efdb03680d1b6499aeaa9';
$partitioned_ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text, outbox);
        ELSE
            EXECUTE pg_catalog.format($ddl$
CREATE TRIGGER "bulksafe_bulksafe_capture_54800_update"
    AFTER UPDATE ON %1$s
    REFERENCING OLD TABLE AS bulksafe_old NEW TABLE AS bulksafe_new
    FOR EACH STATEMENT
    EXECUTE FUNCTION %2$I."bulksafe_bulksafe_capture_54800_update"();
COMMENT ON TRIGGER "bulksafe_bulksafe_capture_54800_update" ON %1$s IS 'bulksafe:64e9f32e75935cf5838efdb03680d1b6499aeaa9';
$ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text, outbox);
        END IF;

IF partitioned THEN
            EXECUTE pg_catalog.format($partitioned_ddl$
CREATE TRIGGER "bulksafe_bulksafe_capture_54800_delete"
    AFTER DELETE ON %1$s
    FOR EACH ROW
    EXECUTE FUNCTION %2$I."bulksafe_bulksafe_capture_54800_delete"();
COMMENT ON TRIGGER "bulksafe_bulksafe_capture_54800_delete" ON %1$s IS 'bulksafe:64e9f32e75935cf5838efdb03680d1b6499aeaa9';
$partitioned_ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text, outbox);
        ELSE
            EXECUTE pg_catalog.format($ddl$
CREATE TRIGGER "bulksafe_bulksafe_capture_54800_delete"
    AFTER DELETE ON %1$s
    REFERENCING OLD TABLE AS bulksafe_old
    FOR EACH STATEMENT
    EXECUTE FUNCTION %2$I."bulksafe_bulksafe_capture_54800_delete"();
COMMENT ON TRIGGER "bulksafe_bulksafe_capture_54800_delete" ON %1$s IS 'bulksafe:64e9f32e75935cf5838efdb03680d1b6499aeaa9';
$ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text, outbox);
        END IF;

EXECUTE pg_catalog.format($ddl$
CREATE TRIGGER "bulksafe_bulksafe_capture_54800_truncate"
    BEFORE TRUNCATE ON %1$s
    FOR EACH STATEMENT
    WHEN ((
        COALESCE(current_setting('bulksafe.muted', true), '') || COALESCE(current_setting('pgtrigger.ignore', true), '') = ''
        OR NOT (
            COALESCE(NULLIF(current_setting('bulksafe.muted', true), ''), '{}')::text[] && ARRAY['shop.Order:bulksafe_capture', '*']
            OR 'pgtrigger_bulksafe_capture_54800' = ANY (string_to_array(btrim(COALESCE(current_setting('pgtrigger.ignore', true), ''), '{}'), ','))
        )
    ))
    EXECUTE FUNCTION %2$I."bulksafe_bulksafe_capture_54800_truncate"();
COMMENT ON TRIGGER "bulksafe_bulksafe_capture_54800_truncate" ON %1$s IS 'bulksafe:64e9f32e75935cf5838efdb03680d1b6499aeaa9';
$ddl$, target, home, path, parameters, arguments, result_type, stored_type, body, as_text, outbox);
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
        WHERE n.nspname = home AND p.proname::text = ANY (ARRAY['pgtrigger_bulksafe_capture_54800', 'bulksafe_bulksafe_capture_54800_update', 'bulksafe_bulksafe_capture_54800_delete', 'bulksafe_bulksafe_capture_54800_truncate']::pg_catalog.text[]) AND p.prorettype = 'trigger'::regtype
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
                WHERE p.proname::text = ANY (ARRAY['pgtrigger_bulksafe_capture_54800', 'bulksafe_bulksafe_capture_54800_update', 'bulksafe_bulksafe_capture_54800_delete', 'bulksafe_bulksafe_capture_54800_truncate']::pg_catalog.text[]) AND p.pronamespace = c.relnamespace
                UNION ALL
                SELECT 'pg_trigger'::regclass, t.oid FROM pg_trigger AS t
                WHERE t.tgrelid = target AND t.tgname::text = ANY (ARRAY['pgtrigger_bulksafe_capture_54800', 'bulksafe_bulksafe_capture_54800_update', 'bulksafe_bulksafe_capture_54800_delete', 'bulksafe_bulksafe_capture_54800_truncate']::pg_catalog.text[])
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
    WHERE p.proname::text = ANY (ARRAY['pgtrigger_bulksafe_capture_54800', 'bulksafe_bulksafe_capture_54800_update', 'bulksafe_bulksafe_capture_54800_delete', 'bulksafe_bulksafe_capture_54800_truncate']::pg_catalog.text[])
      AND (
          n.nspname = COALESCE(
              (SELECT m.nspname FROM pg_class AS c JOIN pg_namespace AS m ON m.oid = c.relnamespace WHERE c.oid = target),
              home
          )
          -- A table that was moved to another schema has left its functions behind.
          OR n.oid IN (
              SELECT f.pronamespace FROM pg_trigger AS t JOIN pg_proc AS f ON f.oid = t.tgfoid
              WHERE t.tgrelid = target AND f.proname::text = ANY (ARRAY['pgtrigger_bulksafe_capture_54800', 'bulksafe_bulksafe_capture_54800_update', 'bulksafe_bulksafe_capture_54800_delete', 'bulksafe_bulksafe_capture_54800_truncate']::pg_catalog.text[])
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
