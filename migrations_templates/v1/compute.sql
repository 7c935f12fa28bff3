-- Body of the function that sets the computed column. The assignment refuses what does not fit.

BEGIN
    IF %2$I.:"is_unmuted"() THEN
        NEW.:"column" := %2$I.:"value"(%5$s);
    END IF;
    RETURN NEW;
END
