-- Body of the function that sets the computed column, except in a row that was wrong before and whose inputs do not
-- change.

BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF pg_catalog.array_eq(:old_inputs, :new_inputs) THEN
            RETURN NEW;
        END IF;
    END IF;
    IF %2$I.:"is_unmuted"() THEN
        NEW.:"column" := %2$I.:"value"(%5$s);
    END IF;
    RETURN NEW;
END
