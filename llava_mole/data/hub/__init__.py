"""The published sets: what they are, fetching them from the hub, and unpacking their archives."""
