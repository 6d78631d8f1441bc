"""What is left of an evaluation for people to read."""
