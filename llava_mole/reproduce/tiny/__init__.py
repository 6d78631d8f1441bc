"""The tiny scale's own data and base model: three domains that conflict, on a CPU in minutes."""
