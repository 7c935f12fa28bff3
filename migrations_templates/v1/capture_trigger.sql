-- One trigger for all changed rows of a statement.

CREATE TRIGGER :"trigger"
    AFTER :events ON %1$s
    REFERENCING :transition
    FOR EACH STATEMENT
    EXECUTE FUNCTION %2$I.:"function"();
COMMENT ON TRIGGER :"trigger" ON %1$s IS :'hash';
