-- The body of the function that the next step makes, for a capture with conditions.
--
-- They are bound here and now: the body of a function has them parsed, with the path that finds the operators
-- of the table's own types, and gives them back with every name qualified. The capture could not have this path
-- itself, since it runs with its owner's rights and others may create objects there later.

        DECLARE
            given CONSTANT pg_catalog.text[] := :conditions;
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
                SELECT p.oid INTO held
                FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
                WHERE p.proname = 'bulksafe_condition' AND n.nspname = home;
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
                -- As for what the function itself depends on.
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
                    WHERE d.classid = 'pg_proc'::regclass AND d.objid = held
                        AND NOT (r.rolsuper OR r.rolname = current_user OR o.owner = c.relowner)
                        AND n.nspname::text <> ALL (:trusted)
                        AND NOT EXISTS (
                            SELECT FROM pg_depend AS e
                            WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e'
                        )
                LOOP
                    RAISE EXCEPTION USING
                        ERRCODE = 'insufficient_privilege',
                        MESSAGE = format('the condition would use %s, which belongs to %s', intruder.object, intruder.owner),
                        HINT = 'Drop it, or add its schema to BULKSAFE["SEARCH_PATH"] in the settings if you trust all who '
                               'may create objects there.';
                END LOOP;
                EXECUTE format('DROP FUNCTION %s', held);
                PERFORM set_config('search_path', path, true);
            END LOOP;
            body := pg_catalog.format(
                :$body,
                VARIADIC ARRAY[
                    target::pg_catalog.text, home, path, parameters, arguments, result_type, stored_type, NULL, NULL, outbox
                ] || bound
            );
        END;
