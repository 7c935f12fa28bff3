-- A rule that is observed writes its violations to a table beside the outbox, with the rights of the installing role: the
-- table must belong to a trusted role.

        IF outbox IS NULL OR to_regclass(format('%I.bulksafe_violation', outbox)) IS NULL THEN
            RAISE EXCEPTION USING
                ERRCODE = 'undefined_table',
                MESSAGE = 'bulksafe''s table of violations is missing in this database',
                HINT = 'Run “manage.py migrate bulksafe” first, or add a dependency on bulksafe to the migration.';
        END IF;
        FOR intruder IN
            SELECT o.relowner::regrole AS owner
            FROM pg_class AS o
            JOIN pg_class AS c ON c.oid = target
            JOIN pg_roles AS r ON r.oid = o.relowner
            JOIN pg_roles AS me ON me.rolname = current_user
            WHERE o.oid = to_regclass(format('%I.bulksafe_violation', outbox))
              AND NOT (
                  r.rolsuper OR o.relowner = c.relowner OR r.oid = me.oid
                  OR (NOT me.rolsuper AND pg_has_role(me.oid, r.oid, 'MEMBER'))
              )
        LOOP
            RAISE EXCEPTION USING
                ERRCODE = 'insufficient_privilege',
                MESSAGE = format('bulksafe''s table of violations belongs to %s', intruder.owner),
                HINT = 'If it is not yours, a table of this name comes first on the search_path: drop it.';
        END LOOP;
