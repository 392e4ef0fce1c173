"""Run the stages side by side: DVC says what has to run and keeps the lock, this package says when and where."""
