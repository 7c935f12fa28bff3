-- A capture writes to the outbox.

        IF outbox IS NULL THEN
            RAISE EXCEPTION USING
                ERRCODE = 'undefined_table',
                MESSAGE = 'bulksafe''s own tables are missing in this database',
                HINT = 'Run “manage.py migrate bulksafe” first, or add a dependency on bulksafe to the migration.';
        END IF;
