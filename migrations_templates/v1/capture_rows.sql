-- The events of one model's rows.

        INSERT INTO %10$I.bulksafe_outbox
            (slot, bucket, source, part, operation, depth, key, old, new, matched, context)
        SELECT (SELECT last_value FROM %10$I.bulksafe_outbox_slot), (hashtextextended(k.key, 0) & 15)::smallint,
               bulksafe.source, :part, :'operation', bulksafe.depth, k.key, k.old, k.new, k.matched, bulksafe.context
        FROM (
            SELECT :key AS key, :old AS old, :new AS new, :matched AS matched
            FROM :rows
            :joins
            WHERE CASE WHEN :condition THEN true END
        ) AS k;
        captured := captured OR FOUND;
