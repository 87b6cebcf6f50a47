"""What rows of earlier runs, and of other shapes, say to try first."""
