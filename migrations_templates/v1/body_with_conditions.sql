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
:intruders
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
