-- Body of the function that refuses TRUNCATE, which leaves no images of the rows for receivers of deletions.

BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'check_violation',
        MESSAGE = :'message',
        DETAIL = concat('Invariant ', :'invariant', ' refuses the TRUNCATE of the table.'),
        HINT = concat('with bulksafe.muted(', quote_literal(:'invariant'), '): …, or BULKSAFE["TRUNCATE"] = "allow" in the settings.'),
        SCHEMA = TG_TABLE_SCHEMA,
        TABLE = TG_TABLE_NAME,
        CONSTRAINT = :'name';
END
