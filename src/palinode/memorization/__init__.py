"""Finding memorized prompts and copied images: detectors, and how well they find what is known to be memorized."""
