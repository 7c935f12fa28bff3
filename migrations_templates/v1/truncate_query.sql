-- One row that must not be deleted.

SELECT to_jsonb("old") FROM ONLY %1$s AS "old" WHERE :violated LIMIT 1
