"""The receptive-field explorer of lesson 4."""
