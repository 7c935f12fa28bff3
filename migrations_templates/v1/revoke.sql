-- Takes every privilege on bulksafe's own tables, sequences and functions from all roles but their owner, whatever
-- ALTER DEFAULT PRIVILEGES has given them. “migrate” then grants what the settings say.

DO $bulksafe$
DECLARE
    caller_path CONSTANT text := pg_catalog.current_setting('search_path');
    home CONSTANT name := (
:home
    );
    item record;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    FOR item IN
        SELECT o.kind, o.name, CASE o.grantee WHEN 0 THEN 'PUBLIC' ELSE o.grantee::regrole::text END AS grantee
        FROM (
            SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, c.oid::regclass::text AS name,
                   a.grantee, c.relowner AS owner
            FROM pg_class AS c
            JOIN pg_namespace AS n ON n.oid = c.relnamespace
            CROSS JOIN LATERAL (
                SELECT x.grantee FROM aclexplode(c.relacl) AS x
                UNION
                SELECT x.grantee FROM pg_attribute AS t CROSS JOIN LATERAL aclexplode(t.attacl) AS x WHERE t.attrelid = c.oid
            ) AS a
            WHERE n.nspname = home AND c.relkind IN ('r', 'p', 'S') AND c.relname::text = ANY (:names)
            UNION
            SELECT 'FUNCTION', p.oid::regprocedure::text, a.grantee, p.proowner
            FROM pg_proc AS p
            JOIN pg_namespace AS n ON n.oid = p.pronamespace
            CROSS JOIN LATERAL aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) AS a
            WHERE n.nspname = home AND p.proname::text = ANY (:names)
        ) AS o
        WHERE o.grantee <> o.owner
    LOOP
        EXECUTE format('REVOKE ALL ON %s %s FROM %s CASCADE', item.kind, item.name, item.grantee);
    END LOOP;
    PERFORM pg_catalog.set_config('search_path', caller_path, true);
END
$bulksafe$;
