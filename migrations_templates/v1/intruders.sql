-- Refuses dependencies on functions and operators whose owner neither the table's owner nor the current user trusts.
-- Names must be resolved with pg_catalog alone.

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
                :dependents
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
            MESSAGE = format('the %s would use %s, which belongs to %s', :'subject', intruder.object, intruder.owner),
            HINT = 'Drop it, or add its schema to BULKSAFE["SEARCH_PATH"] in the settings if you trust all who may '
                   'create objects there.';
    END LOOP;
