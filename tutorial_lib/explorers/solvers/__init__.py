"""The solver explorer of lesson 9."""
