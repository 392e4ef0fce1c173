"""Text-to-image models, trained on captioned emoji or finished elsewhere; an oracle never saw a thing or a style."""
