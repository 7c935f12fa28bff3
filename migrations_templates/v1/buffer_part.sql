-- The changes of a child's rows (multi-table inheritance) of which a part lies in this table, for receivers in the
-- writer's transaction.

        WITH added AS (
        INSERT INTO %10$I.bulksafe_buffer (source, part, operation, depth, key, old, new, matched, refused, context)
        SELECT to_regclass(:child), :part, :'operation', bulksafe.depth, k.key, k.old, k.new, k.matched, k.refused,
               bulksafe.context
        FROM (
            SELECT :key AS key, :old AS old, :new AS new, :matched AS matched, :refused AS refused
            FROM :rows
            :joins
            CROSS JOIN LATERAL (SELECT "new".*) AS "old"
            WHERE CASE WHEN :condition AND (:key) IS NOT NULL THEN true END
        ) AS k
        RETURNING ctid AS place
        )
        SELECT array_agg(place) INTO places FROM added;
        IF places IS NOT NULL THEN
            PERFORM %10$I.bulksafe_added(:model_source, :'operation', places);
:notice
        END IF;
