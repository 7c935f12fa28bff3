-- A statement that names a partition fires no statement-level trigger of the partitioned table.

CREATE TRIGGER :"trigger"
    AFTER :events ON %1$s
    FOR EACH ROW
    EXECUTE FUNCTION %2$I.:"function"();
COMMENT ON TRIGGER :"trigger" ON %1$s IS :'hash';
