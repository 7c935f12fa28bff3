-- Another table that a row of multi-table inheritance lies in.

:kind :relation AS :"alias" ON :on
