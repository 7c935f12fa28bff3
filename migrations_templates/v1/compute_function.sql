-- Sets the computed column. There is no SET search_path, which would cost more than the work: all names
-- are qualified. SECURITY DEFINER: whoever writes through a view need not have a right on the schema.

CREATE FUNCTION %2$I.:"function"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
AS %8$L;
REVOKE ALL ON FUNCTION %2$I.:"function" FROM PUBLIC;
