-- The rows that must not be deleted.

SELECT to_jsonb("old".*) FROM ONLY %1$s AS "old" WHERE %2$I.:"rule"(:rule_arguments)
