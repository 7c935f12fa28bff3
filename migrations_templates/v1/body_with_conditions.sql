-- The body of the function that the next step makes, for a capture with conditions.
--
-- They are bound here and now: a view has them parsed, with the path that finds the operators of the table's
-- own types, and gives them back with every name qualified. The function could not have this path itself,
-- since it runs with its owner's rights and others may create objects there later.

        DECLARE
            given CONSTANT pg_catalog.text[] := :conditions;
            bound pg_catalog.text[] := '{}';
            condition pg_catalog.text;
            shape pg_catalog.text;
            frame pg_catalog.text;
            held pg_catalog.regclass;
            intruder pg_catalog.record;
        BEGIN
            FOREACH condition IN ARRAY ARRAY['true'] || given LOOP
                EXECUTE pg_catalog.format(
                    'CREATE VIEW %I.bulksafe_condition AS SELECT (%s) IS TRUE AS met FROM %s AS "old", %s AS "new"',
                    home, condition, target, target
                );
                PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
                held := to_regclass(format('%I.bulksafe_condition', home));
                shape := pg_get_viewdef(held);
                IF frame IS NULL THEN
                    frame := substr(shape, strpos(shape, ' AS met'));
                ELSE
                    shape := substr(shape, strpos(shape, '('));
                    bound := bound || substr(shape, 1, length(shape) - length(frame));
                END IF;
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
                    WHERE (d.classid, d.objid) IN (
                            SELECT 'pg_rewrite'::regclass, w.oid FROM pg_rewrite AS w WHERE w.ev_class = held
                        )
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
                EXECUTE format('DROP VIEW %I.bulksafe_condition', home);
                PERFORM set_config('search_path', path, true);
            END LOOP;
            body := pg_catalog.format(
                :$body,
                VARIADIC ARRAY[
                    target::pg_catalog.text, home, path, parameters, arguments, result_type, stored_type, NULL, NULL, outbox
                ] || bound
            );
        END;
