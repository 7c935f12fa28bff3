-- The body of the DO block that removes the triggers and the functions of one invariant.
--
-- The triggers are found by their function, not by their table: it may have another name by now.

DECLARE
    caller_path CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
    target CONSTANT pg_catalog.regclass := pg_catalog.to_regclass(:'table');
    home CONSTANT pg_catalog.name := pg_catalog.current_schema();
    owned pg_catalog.oid[];
    item pg_catalog.record;
    waiting pg_catalog.text;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

    SELECT array_agg(p.oid) INTO owned
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE p.proname::text = ANY (:functions)
      AND (
          n.nspname = COALESCE(
              (SELECT m.nspname FROM pg_class AS c JOIN pg_namespace AS m ON m.oid = c.relnamespace WHERE c.oid = target),
              home
          )
          -- A table that was moved to another schema has left its functions behind.
          OR n.oid IN (
              SELECT f.pronamespace FROM pg_trigger AS t JOIN pg_proc AS f ON f.oid = t.tgfoid
              WHERE t.tgrelid = target AND f.proname::text = ANY (:functions)
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
END
