-- Body of the function that gives TRUNCATE the answer that deleting each row would have got.

DECLARE
    subject jsonb;
BEGIN
    EXECUTE format(:$query, TG_RELID::regclass, %2$L) INTO subject;
    IF subject IS NOT NULL THEN
        :violation
    END IF;
    RETURN NULL;
END
