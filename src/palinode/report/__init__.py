"""From evaluated cells to tables, claims, plots and one static page. Reads cells only; computes no metric itself."""
