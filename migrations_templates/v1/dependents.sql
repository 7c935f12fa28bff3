-- What an installation has made.

SELECT 'pg_proc'::regclass, p.oid FROM pg_proc AS p
                WHERE p.proname::text = ANY (:functions) AND p.pronamespace = c.relnamespace
                UNION ALL
                SELECT 'pg_trigger'::regclass, t.oid FROM pg_trigger AS t
                WHERE t.tgrelid = target AND t.tgname::text = ANY (:triggers)
