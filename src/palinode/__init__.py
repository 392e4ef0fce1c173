"""palinode: reproducible unlearning for diffusion models."""
