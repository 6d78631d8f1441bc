"""What the framework's speed and memory claims are measured by."""
