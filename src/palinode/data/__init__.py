"""Image sources and forget/retain splits."""
