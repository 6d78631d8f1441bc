"""Prepared folders: a source's records as Arrow shards, written by processes and opened at once."""
