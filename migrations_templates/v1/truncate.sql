-- Body of the function that gives TRUNCATE the answer that deleting each row would have got.

DECLARE
    subject jsonb;
BEGIN
    EXECUTE format(:$query, TG_RELID::regclass, %2$L) INTO subject;
    IF subject IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation',
            MESSAGE = :'message',
            DETAIL = concat('Invariant ', :'invariant', ' refuses the ', TG_OP, ' of the row with ', :key, '.'),
            SCHEMA = TG_TABLE_SCHEMA,
            TABLE = TG_TABLE_NAME,
            CONSTRAINT = :'name';
    END IF;
    RETURN NULL;
END
