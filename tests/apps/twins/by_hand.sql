-- What Django makes no migration for: a cascade in the database and a partitioned table.

ALTER TABLE twins_entry
    ADD CONSTRAINT twins_entry_shelf FOREIGN KEY (shelf_id) REFERENCES twins_shelf ON DELETE CASCADE;

ALTER TABLE twins_parcel RENAME TO twins_parcel_plain;
CREATE TABLE twins_parcel (LIKE twins_parcel_plain INCLUDING DEFAULTS, PRIMARY KEY (key))
    PARTITION BY RANGE (key);
DROP TABLE twins_parcel_plain;
CREATE TABLE twins_parcel_low PARTITION OF twins_parcel FOR VALUES FROM (MINVALUE) TO (1000);
CREATE TABLE twins_parcel_high PARTITION OF twins_parcel FOR VALUES FROM (1000) TO (MAXVALUE);
