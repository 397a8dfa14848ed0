"""How a running bridge is watched: its log, its figures, its pulse."""
