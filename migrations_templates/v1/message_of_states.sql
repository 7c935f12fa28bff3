-- The message of a Transition that declares none: the states of the refused change. A role that may not read them is
-- not shown them, as in violation.sql. A long value is cut, as in PostgreSQL's own errors.

CASE
        WHEN :is_readable
            AND has_column_privilege(:caller, COALESCE(pg_partition_root(TG_RELID), TG_RELID), :'state_column', 'SELECT')
        THEN (
            SELECT concat(
                '“', :'state_field', '” cannot ', CASE TG_OP WHEN 'INSERT' THEN 'start with ' ELSE 'change from ' END,
                string_agg(
                    COALESCE('“' || CASE WHEN length(state) > 64 THEN left(state, 63) || '…' ELSE state END || '”', 'no value'),
                    ' to ' ORDER BY place
                ),
                '.'
            )
            FROM (
                VALUES (1, to_jsonb(OLD) ->> :'state_column'), (2, to_jsonb(NEW) ->> :'state_column')
            ) AS states (place, state)
            WHERE place = 2 OR TG_OP = 'UPDATE'
        )
        ELSE :'message'
    END
