"""The editing explorer."""
