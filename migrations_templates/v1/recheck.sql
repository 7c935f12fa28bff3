-- Body of the function behind a deferred check. At the commit the row may have been fixed or deleted, so it is checked
-- again. SECURITY DEFINER: a role that may write the row may lack the privilege to read it.

DECLARE
    broken boolean;
    subject jsonb := to_jsonb(NEW);
BEGIN
    EXECUTE format(:$query, TG_RELID::regclass, %2$L) INTO broken USING :pk_values;
    IF broken THEN
        :violation
    END IF;
    RETURN NULL;
END
