-- The function behind a capture trigger. SECURITY DEFINER: the writer needs no privilege on the outbox. Images must not
-- depend on the writer's settings, which affect the text of some types.

CREATE FUNCTION %2$I.:"function"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
:settings
AS %8$L;
REVOKE ALL ON FUNCTION %2$I.:"function" FROM PUBLIC;
