-- Body of the function behind a deferred check. At the commit the row may have been mended or deleted,
-- so it is looked at again. SECURITY DEFINER: whoever may write the row need not be allowed to read it.

DECLARE
    broken boolean;
    subject jsonb := to_jsonb(NEW);
BEGIN
    EXECUTE format(:$query, TG_RELID::regclass, %2$L) INTO broken USING :pk_values;
    IF broken THEN
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
