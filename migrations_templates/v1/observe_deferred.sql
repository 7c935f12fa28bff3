-- Body of the function behind a deferred check that is observed. Of several changes of a row, the one that left it as it is
-- at the commit records it. SECURITY DEFINER: a role that may write the row may lack the privilege to read it.

DECLARE
    broken boolean;
    subject jsonb := to_jsonb(NEW);
BEGIN
    IF NOT :is_recording THEN
        RETURN NULL;
    END IF;
    EXECUTE format(:$query, TG_RELID::regclass, %2$L) INTO broken USING :pk_values, subject;
    IF broken THEN
        :record
    END IF;
    RETURN NULL;
END
