"""The guidance explorer of lesson 8."""
