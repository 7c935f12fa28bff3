-- Is the row, as it is now, still broken? NULL if no row has its key.

SELECT bool_or(%2$I.:"rule"(:rule_arguments) IS TRUE) FROM %1$s AS "new" WHERE (:pk_columns) = (:pk_parameters)
