"""D4RL: its catalogue, its files, its own package and its reference returns."""
