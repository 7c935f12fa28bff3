-- The refusal, for every client: a class 23 error that names the table, the invariant and the row. The
-- variable "subject" holds the row's image. A role that may not read the key is not shown it, as in PostgreSQL's own
-- errors.

RAISE EXCEPTION USING
        ERRCODE = 'check_violation',
        MESSAGE = :message_text,
        DETAIL = concat(
            'Invariant ', :'invariant', ' refuses the ', TG_OP, ' of ',
            CASE WHEN :is_readable THEN concat('the row with ', :key) ELSE 'a row' END, '.'
        ),
        SCHEMA = TG_TABLE_SCHEMA,
        TABLE = TG_TABLE_NAME,
        CONSTRAINT = :'name';
