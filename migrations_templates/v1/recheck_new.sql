-- Body of the function behind a deferred check with mode="new": a row that was broken before the transaction may stay
-- broken. The triggers queue each change of a row from or to a broken state. So the first queued change has the row as it
-- was before the transaction, or as good as that.
--
-- The note in the setting lists the rows of this transaction: with "+" those that were broken before it and have been
-- mended since, with "-" those that it broke and that have had another key since.

DECLARE
    broken boolean;
    subject jsonb := to_jsonb(OLD);
    note CONSTANT text := COALESCE(current_setting('bulksafe.judged', true), '');
    before CONSTANT text := concat(chr(10), md5(concat(:'invariant', TG_RELID, :key)));
    after text;
BEGIN
    subject := to_jsonb(NEW);
    after := concat(chr(10), md5(concat(:'invariant', TG_RELID, :key)));
    IF TG_OP = 'UPDATE' THEN
        IF %2$I.:"rule"(:old_arguments) AND strpos(note, before || '-') = 0 THEN
            IF %2$I.:"rule"(:new_arguments) IS NOT TRUE AND strpos(note, after || '+') = 0 THEN
                PERFORM set_config('bulksafe.judged', note || after || '+', true);
            END IF;
            RETURN NULL;
        END IF;
        IF strpos(note, before || '+') > 0 THEN
            RETURN NULL;
        END IF;
    END IF;
    EXECUTE format(:$query, TG_RELID::regclass, %2$L) INTO broken USING :pk_values;
    IF broken THEN
        :violation
    ELSIF broken IS NULL AND strpos(note, after || '-') = 0 THEN
        PERFORM set_config('bulksafe.judged', note || after || '-', true);
    END IF;
    RETURN NULL;
END
