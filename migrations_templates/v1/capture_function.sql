-- The function behind a capture trigger. SECURITY DEFINER: whoever writes the row need have no right on the
-- outbox. What the images look like must not depend on the writer's settings, where types go by them.

CREATE FUNCTION %2$I.:"function"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
:settings
AS %8$L;
REVOKE ALL ON FUNCTION %2$I.:"function" FROM PUBLIC;
