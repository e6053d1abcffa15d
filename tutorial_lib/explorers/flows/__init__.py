"""The flow explorer of lesson 10."""
