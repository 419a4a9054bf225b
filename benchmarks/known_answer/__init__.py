"""Markets whose answer is known: `python -m benchmarks.known_answer`."""
