-- One step of the installation, for partitioned tables.

        IF partitioned THEN
            EXECUTE pg_catalog.format(:$ddl, target, home, path, parameters, arguments, result_type, stored_type, body, as_text);
        END IF;
