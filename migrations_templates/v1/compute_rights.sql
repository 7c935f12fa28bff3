-- Where not every role may use the schema, those that write through a view could not call the functions: then the owner's
-- rights, and with them a path of its own.

        IF NOT pg_catalog.has_schema_privilege('public', home, 'USAGE') THEN
            EXECUTE pg_catalog.format('ALTER FUNCTION %I.%I() SECURITY DEFINER SET search_path = %s', home, :'function', :'trusted_path');
        END IF;
