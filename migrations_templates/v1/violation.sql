-- The refusal, for every client: a class 23 error that names the table, the invariant and the row. The
-- variable "subject" holds the row's image.

RAISE EXCEPTION USING
        ERRCODE = 'check_violation',
        MESSAGE = :'message',
        DETAIL = concat('Invariant ', :'invariant', ' refuses the ', TG_OP, ' of the row with ', :key, '.'),
        SCHEMA = TG_TABLE_SCHEMA,
        TABLE = TG_TABLE_NAME,
        CONSTRAINT = :'name';
