"""The schedule explorer of lesson 1."""
