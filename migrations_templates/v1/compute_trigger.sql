-- BEFORE sets the column where it differs. AFTER looks at what was stored, in case that another BEFORE
-- trigger, which fires later, changed it or what it is made from.

CREATE TRIGGER :"trigger"
    :timing INSERT OR UPDATE ON %1$s
    FOR EACH ROW
    WHEN (new.:"column"%9$s IS DISTINCT FROM %2$I.:"value"(%5$s)::%7$s)
    EXECUTE FUNCTION %2$I.:"function"();
COMMENT ON TRIGGER :"trigger" ON %1$s IS :'hash';
