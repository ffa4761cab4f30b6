"""What developers measure: `python -m benchmarks.latent`, `.ranks`, `.scaling`, from the root of a checkout."""
