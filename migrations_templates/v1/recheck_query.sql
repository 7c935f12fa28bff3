-- Is the row, as it is now, still broken?

SELECT EXISTS (SELECT FROM %1$s AS "new" WHERE (:pk_columns) = (:pk_parameters) AND %2$I.:"rule"(:rule_arguments))
