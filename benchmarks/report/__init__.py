"""Results files as tables, plots and reports."""
