-- True unless this invariant is muted in this transaction, by bulksafe.muted or by pgtrigger.ignore. The
-- first line is the common case, in which nothing at all is muted. What pgtrigger writes is no array where
-- a table has quotes or braces in its name.

(
        COALESCE(current_setting('bulksafe.muted', true), '') || COALESCE(current_setting('pgtrigger.ignore', true), '') = ''
        OR NOT (
            COALESCE(NULLIF(current_setting('bulksafe.muted', true), ''), '{}')::text[] && ARRAY[:'invariant', '*']
            OR :'pgid' = ANY (string_to_array(btrim(COALESCE(current_setting('pgtrigger.ignore', true), ''), '{}'), ','))
        )
    )
