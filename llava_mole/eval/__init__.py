"""Scoring: metrics, and the runner that asks a model a set's questions."""
