-- Whether the role that writes may read the primary key of every row.

(
                SELECT bool_and(has_column_privilege(:caller, c.oid, k.number, 'SELECT'))
                    AND (NOT c.relrowsecurity OR r.rolsuper OR r.rolbypassrls
                         OR (pg_has_role(r.oid, c.relowner, 'USAGE') AND NOT c.relforcerowsecurity))
                FROM pg_class AS c
                JOIN pg_roles AS r ON r.rolname = :caller
                JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisprimary
                CROSS JOIN unnest(i.indkey::int2[]) AS k (number)
                WHERE c.oid = COALESCE(pg_partition_root(TG_RELID), TG_RELID)
                GROUP BY c.oid, c.relrowsecurity, c.relowner, c.relforcerowsecurity, r.oid, r.rolsuper, r.rolbypassrls
            )
