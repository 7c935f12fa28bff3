-- True unless this invariant is muted in this transaction, by bulksafe.muted or by pgtrigger.ignore.

NOT (
            COALESCE(NULLIF(current_setting('bulksafe.muted', true), ''), '{}')::text[] && ARRAY[:'invariant', '*']
            OR :'pgid' = ANY (COALESCE(NULLIF(current_setting('pgtrigger.ignore', true), ''), '{}')::text[])
        )
