"""The flow explorer."""
