"""The forward explorer of lesson 2."""
