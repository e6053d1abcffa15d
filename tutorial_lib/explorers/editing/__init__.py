"""The editing explorer of lesson 11."""
