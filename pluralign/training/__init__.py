"""Training: settings, the one loop, and the run folder."""
