-- Body of the function that records the rows of a TRUNCATE that must not be deleted.

DECLARE
    subject jsonb;
BEGIN
    FOR subject IN EXECUTE format(:$query, TG_RELID::regclass, %2$L) LOOP
        EXIT WHEN NOT :is_recording;
        :record
    END LOOP;
    RETURN NULL;
END
