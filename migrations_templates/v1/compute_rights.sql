-- If not every role may use the schema, roles that write through a view could not call the functions. Then they run
-- with the owner's rights and their own search_path.

        IF NOT pg_catalog.has_schema_privilege('public', home, 'USAGE') THEN
            EXECUTE pg_catalog.format('ALTER FUNCTION %I.%I() SECURITY DEFINER SET search_path = %s', home, :'function', :'trusted_path');
        END IF;
