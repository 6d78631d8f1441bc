"""The model: open_clip tower, processor and templates, build, load, freeze."""
