-- A capture for receivers in the writer's transaction writes to the buffer, which lies beside the outbox.

        IF to_regclass(format('%I.bulksafe_buffer', outbox)) IS NULL THEN
            RAISE EXCEPTION USING
                ERRCODE = 'undefined_table',
                MESSAGE = 'bulksafe''s buffer is missing in this database',
                HINT = 'Run “manage.py migrate bulksafe” first, or add a dependency on bulksafe to the migration.';
        END IF;
