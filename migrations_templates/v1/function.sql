-- A trigger function. Its own search_path, so that the caller's has no say. No policy hides a row from it:
-- where one applies to its owner, PostgreSQL says so. Nobody else may make triggers with it: on a view of
-- theirs, it would do what the view says with the rights of its owner.

CREATE FUNCTION %2$I.:"function"() RETURNS trigger
LANGUAGE plpgsql :security
SET search_path = pg_catalog, pg_temp
SET row_security = off
AS %8$L;
REVOKE ALL ON FUNCTION %2$I.:"function" FROM PUBLIC;
