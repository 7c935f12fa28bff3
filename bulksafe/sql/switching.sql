-- Captures that are switched on and off while receivers are rolled out.

-- name: is_switched_on
-- Whether the captures of all of these tables are installed and switched on. Reads the present state of the catalogs
-- also in a transaction whose snapshot is older: to_regprocedure() and pg_get_functiondef() do. The function may be in
-- another schema than its table if the table was moved.
SELECT bool_and(COALESCE(strpos(pg_get_functiondef(found.function), %(mark)s) = 0, false))
FROM unnest(%(tables)s::text[], %(triggers)s::text[]) AS wanted (name, trigger)
LEFT JOIN pg_class AS c ON c.oid = to_regclass(wanted.name)
CROSS JOIN LATERAL (
    SELECT COALESCE(
        to_regprocedure(format('%%s.%%I()', c.relnamespace::regnamespace, wanted.trigger))::oid,
        (
            SELECT t.tgfoid FROM pg_trigger AS t
            WHERE t.tgrelid = c.oid AND t.tgname = wanted.trigger AND t.tgparentid = 0
        )
    ) AS function
) AS found
