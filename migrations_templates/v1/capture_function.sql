-- The function behind a capture trigger. SECURITY DEFINER: whoever writes the row need have no right on the
-- outbox. What the images look like must not depend on the writer's settings.

CREATE FUNCTION %2$I.:"function"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET timezone = 'UTC'
SET datestyle = 'ISO'
SET intervalstyle = 'postgres'
SET extra_float_digits = 1
SET bytea_output = 'hex'
AS %8$L;
REVOKE ALL ON FUNCTION %2$I.:"function" FROM PUBLIC;
