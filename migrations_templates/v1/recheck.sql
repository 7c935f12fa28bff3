-- Body of the function behind a deferred check. At the commit the row may have been mended or deleted,
-- so it is looked at again. SECURITY DEFINER: whoever may write the row need not be allowed to read it.

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
