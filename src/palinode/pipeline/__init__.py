"""What DVC sees: plan files, fingerprints of code, and how a stage starts."""
