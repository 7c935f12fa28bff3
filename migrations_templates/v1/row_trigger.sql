-- The rule is the WHEN clause: parsed once, bound to its operators and functions for good, and
-- evaluated without a call. The function runs for rows that break the rule.

CREATE TRIGGER :"trigger"
    :timing :events ON %1$s
    FOR EACH ROW
    WHEN (:condition)
    EXECUTE FUNCTION %2$I.:"function"();
COMMENT ON TRIGGER :"trigger" ON %1$s IS :'hash';
