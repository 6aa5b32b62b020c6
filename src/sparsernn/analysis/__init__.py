"""See it: tables, plots and the one-file report, from plain data."""
