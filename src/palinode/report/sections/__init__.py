"""Parts of the page that only some runs have."""
