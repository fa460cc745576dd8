"""Images and labels: where they come from, how they are read, moved about and normalised."""
