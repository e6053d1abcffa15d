"""The embedding explorer of lesson 4."""
