-- A trigger function. It has its own search_path, independent of the caller's. No policy hides a row from it: if one
-- applies to its owner, PostgreSQL raises an error. Other roles may not create triggers with it: on their own view, it
-- would execute the view's code with the rights of its owner.

CREATE FUNCTION %2$I.:"function"() RETURNS trigger
LANGUAGE plpgsql :security
SET search_path = pg_catalog, pg_temp
SET row_security = off
AS %8$L;
REVOKE ALL ON FUNCTION %2$I.:"function" FROM PUBLIC;
