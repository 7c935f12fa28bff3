-- Body of the function that sets the computed column. The assignment refuses what does not fit.

BEGIN
    NEW.:"column" := %2$I.:"value"(%5$s);
    RETURN NEW;
END
