-- The body of the function that the next step makes, for a capture.

        body := pg_catalog.format(:$body, target, home, path, parameters, arguments, result_type, stored_type, NULL, NULL, outbox);
