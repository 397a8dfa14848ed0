"""What operators ask: what a new configuration would change, why something goes where it goes, an arrival once more."""
