-- Refuses to go on beside objects with names of ours that belong to others: what they made has triggers and rules of
-- theirs, which would see every row, with the rights of the role that captures it.

    FOR stranger IN
        SELECT pg_describe_object(o.class, o.oid, 0) AS object, o.owner::regrole AS owner
        FROM (
            SELECT 'pg_class'::regclass AS class, oid, relname AS name, relowner AS owner, relnamespace AS schema
            FROM pg_class
            UNION ALL
            SELECT 'pg_proc'::regclass, oid, proname, proowner, pronamespace FROM pg_proc
            UNION ALL
            SELECT 'pg_type'::regclass, oid, typname, typowner, typnamespace FROM pg_type WHERE typrelid = 0
        ) AS o
        JOIN pg_namespace AS n ON n.oid = o.schema
        JOIN pg_roles AS r ON r.oid = o.owner
        JOIN pg_roles AS me ON me.rolname = current_user
        JOIN pg_database AS d ON d.datname = current_database()
        WHERE n.nspname = home
          AND o.name::text = ANY (:names)
          AND (
              NOT is_there
              OR NOT (
                  r.rolsuper OR r.oid IN (me.oid, d.datdba, n.nspowner)
                  OR (NOT me.rolsuper AND pg_has_role(me.oid, r.oid, 'MEMBER'))
              )
          )
        ORDER BY 1
    LOOP
        RAISE EXCEPTION USING
            ERRCODE = 'duplicate_object',
            MESSAGE = format('bulksafe creates its own %s, and one is there already, which belongs to %s', stranger.object, stranger.owner),
            HINT = 'Find out who made it and why, drop it, and run “manage.py migrate” again. To keep others from creating '
                   'objects in this schema: REVOKE CREATE ON SCHEMA … FROM PUBLIC.';
    END LOOP;
