-- An UPDATE that moves a row to another partition is a DELETE and an INSERT to AFTER triggers. What is
-- left of the update is BEFORE, on the partition that the row comes from.

CREATE TRIGGER :"trigger"
    BEFORE UPDATE ON %1$s
    FOR EACH ROW
    WHEN (:condition)
    EXECUTE FUNCTION %2$I.:"function"();
COMMENT ON TRIGGER :"trigger" ON %1$s IS :'hash';
