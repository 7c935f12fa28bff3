-- Functions of a project that the value calls find their own names on the path of the function that calls them: on one
-- that the writer cannot choose. Only there, since it costs a call for each row.

        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        IF EXISTS (
            SELECT FROM pg_proc AS p
            JOIN pg_depend AS d ON (d.classid, d.objid) = ('pg_proc'::regclass, p.oid)
            LEFT JOIN pg_operator AS o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
            JOIN pg_proc AS called
              ON called.oid = CASE d.refclassid WHEN 'pg_proc'::regclass THEN d.refobjid ELSE o.oprcode END
            JOIN pg_language AS l ON l.oid = called.prolang
            WHERE p.pronamespace = quote_ident(home)::regnamespace AND p.proname = :'function'
              AND l.lanname NOT IN ('internal', 'c')
        ) THEN
            EXECUTE format('ALTER FUNCTION %I.%I SET search_path = %s', home, :'function', :'trusted_path');
        END IF;
        PERFORM set_config('search_path', path, true);
