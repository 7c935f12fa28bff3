-- One step of the installation.

        EXECUTE pg_catalog.format(:$ddl, target, home, path, parameters, arguments, result_type, stored_type, body, as_text);
