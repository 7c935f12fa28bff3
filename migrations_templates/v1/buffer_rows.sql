-- The changes of one model's rows, for receivers in the writer's transaction.

        IF in_hand THEN
            IF answers THEN
                RAISE INFO USING
                    ERRCODE = 'BS002',
                    MESSAGE = format('critical receivers of %%s are left to the writing session', TG_RELID::regclass);
            END IF;
        ELSE
        INSERT INTO %10$I.bulksafe_buffer (source, part, operation, depth, key, old, new, matched, refused, context)
        SELECT bulksafe.source, :part, :'operation', bulksafe.depth, k.key, k.old, k.new, k.matched, k.refused,
               bulksafe.context
        FROM (
            SELECT :key AS key, :old AS old, :new AS new, :matched AS matched, :refused AS refused
            FROM :rows
            :joins
            WHERE CASE WHEN :condition THEN true END
        ) AS k;
        IF FOUND THEN
            buffered := true;
:notice
        END IF;
        END IF;
