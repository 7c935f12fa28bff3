-- Another table that a row of multi-table inheritance lies in.

:kind %2$I.:table AS :"alias" ON :on
