"""What people are shown: tables, plots, the report, the privacy card."""
