"""What is left of a reproduction for people to read: tables, verdicts, figures."""

from llava_mole.reproduce.report.write import judged, write

__all__ = ["judged", "write"]
