"""The trajectory explorer of lesson 6."""
