-- TRUNCATE fires no row trigger.

CREATE TRIGGER :"trigger"
    BEFORE TRUNCATE ON %1$s
    FOR EACH STATEMENT
    WHEN (:unmuted)
    EXECUTE FUNCTION %2$I.:"function"();
COMMENT ON TRIGGER :"trigger" ON %1$s IS :'hash';
