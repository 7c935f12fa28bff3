-- Sets the computed column. SECURITY DEFINER: whoever writes through a view need not have a right on the schema. With
-- a path of its own: functions that the expression calls would look for their names on the writer's, with the rights
-- of the owner.

CREATE FUNCTION %2$I.:"function"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = :trusted_path
AS %8$L;
REVOKE ALL ON FUNCTION %2$I.:"function" FROM PUBLIC;
