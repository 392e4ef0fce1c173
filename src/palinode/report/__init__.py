"""From the cells of a run to its tables, claims, figures and page."""
