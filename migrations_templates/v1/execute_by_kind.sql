-- One step of the installation, which differs for partitioned tables.

        IF partitioned THEN
            EXECUTE pg_catalog.format(:$partitioned_ddl, target, home, path, parameters, arguments, result_type, stored_type, body, as_text, outbox);
        ELSE
            EXECUTE pg_catalog.format(:$ddl, target, home, path, parameters, arguments, result_type, stored_type, body, as_text, outbox);
        END IF;
