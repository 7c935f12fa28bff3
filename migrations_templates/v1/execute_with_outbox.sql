-- One step of the installation of a capture, which also has the schema of the outbox.

        EXECUTE pg_catalog.format(:$ddl, target, home, path, parameters, arguments, result_type, stored_type, body, as_text, outbox);
