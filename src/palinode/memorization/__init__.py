"""Finding memorised prompts and copied images: detectors, and how well they find what is known to be memorised."""
