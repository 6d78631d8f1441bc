"""Readers: one file a published format, each giving `Record`s or the `BadRecord` in their place."""
