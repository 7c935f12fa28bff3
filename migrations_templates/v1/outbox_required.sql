-- A capture writes to the outbox with the rights of the installing role: the outbox must belong to a trusted role.

        IF outbox IS NULL THEN
            RAISE EXCEPTION USING
                ERRCODE = 'undefined_table',
                MESSAGE = 'bulksafe''s own tables are missing in this database',
                HINT = 'Run “manage.py migrate bulksafe” first, or add a dependency on bulksafe to the migration.';
        END IF;
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        FOR intruder IN
            SELECT o.oid::regclass AS object, o.relowner::regrole AS owner
            FROM pg_class AS o
            JOIN pg_class AS c ON c.oid = target
            JOIN pg_roles AS r ON r.oid = o.relowner
            JOIN pg_roles AS me ON me.rolname = current_user
            JOIN pg_namespace AS n ON n.oid = o.relnamespace
            WHERE n.nspname = outbox
              AND o.relname IN (
                  'bulksafe_outbox', 'bulksafe_outbox_0', 'bulksafe_outbox_1', 'bulksafe_outbox_2',
                  'bulksafe_outbox_seq', 'bulksafe_outbox_slot', 'bulksafe_buffer', 'bulksafe_ticket'
              )
              AND NOT (
                  r.rolsuper OR o.relowner = c.relowner OR r.oid = me.oid
                  OR (NOT me.rolsuper AND pg_has_role(me.oid, r.oid, 'MEMBER'))
              )
        LOOP
            RAISE EXCEPTION USING
                ERRCODE = 'insufficient_privilege',
                MESSAGE = format('bulksafe''s table %s belongs to %s', intruder.object, intruder.owner),
                HINT = 'If it is not yours, a table of this name comes first on the search_path: drop it.';
        END LOOP;
        PERFORM set_config('search_path', path, true);
