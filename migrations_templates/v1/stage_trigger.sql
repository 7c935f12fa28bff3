-- Comes before all other triggers of the rows. Its WHEN clause keeps the function from being called for writes that
-- are not collected.

CREATE TRIGGER :"trigger"
    BEFORE :events ON %1$s
    FOR EACH ROW
    WHEN (COALESCE(current_setting('bulksafe.stage', true), '') <> '' AND :unmuted)
    EXECUTE FUNCTION %2$I.:"function"();
COMMENT ON TRIGGER :"trigger" ON %1$s IS :'hash';
