"""Reports: estimates with intervals, tables and figures from the rows of a sweep."""
