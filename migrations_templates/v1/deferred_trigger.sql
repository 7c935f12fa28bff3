-- Remembers the rows that break the rule now; the function looks at them again at the commit.

CREATE CONSTRAINT TRIGGER :"trigger"
    AFTER :events ON %1$s
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW
    WHEN (
        (:condition)
        AND :unmuted
    )
    EXECUTE FUNCTION %2$I.:"function"();
COMMENT ON TRIGGER :"trigger" ON %1$s IS :'hash';
