-- The changes of one model's rows, for receivers in the writer's transaction.

        IF in_hand THEN
            IF returns AND (SELECT count(*) FROM (SELECT FROM :changed LIMIT 20001) AS r) > 20000 THEN
                RAISE EXCEPTION USING
                    ERRCODE = 'BS005',
                    MESSAGE = format('%%s: too many rows to return, which are to be buffered', TG_RELID::regclass);
            ELSIF answers THEN
                RAISE INFO USING
                    ERRCODE = 'BS002',
                    MESSAGE = format('critical receivers of %%s are left to the writing session', TG_RELID::regclass);
            END IF;
        ELSE
        WITH added AS (
        INSERT INTO %10$I.bulksafe_buffer (source, part, operation, depth, key, old, new, matched, refused, context)
        SELECT bulksafe.source, :part, :'operation', bulksafe.depth, k.key, k.old, k.new, k.matched, k.refused,
               bulksafe.context
        FROM (
            SELECT :key AS key, :old AS old, :new AS new, :matched AS matched, :refused AS refused
            FROM :rows
            :joins
            WHERE CASE WHEN :condition THEN true END
        ) AS k
        RETURNING ctid AS place
        )
        SELECT array_agg(place) INTO places FROM added;
        IF places IS NOT NULL THEN
            PERFORM %10$I.bulksafe_added(:model_source, :'operation', places);
:notice
        END IF;
        END IF;
