-- Is the row, as it is now, broken and as this change left it?

SELECT EXISTS (
    SELECT FROM %1$s AS "new"
    WHERE (:pk_columns) = (:pk_parameters) AND %2$I.:"rule"(:rule_arguments) AND to_jsonb("new".*) = :image_parameter
)
