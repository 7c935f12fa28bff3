-- The schema of bulksafe's own tables: the first on the path that has an outbox. The temporary schema, which any session
-- has in front without naming it, is left out.

SELECT n.nspname
            FROM unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS s (name, number)
            JOIN pg_catalog.pg_namespace AS n ON n.nspname = s.name
            JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = 'bulksafe_outbox'
            WHERE n.oid <> pg_catalog.pg_my_temp_schema()
            ORDER BY s.number
            LIMIT 1
