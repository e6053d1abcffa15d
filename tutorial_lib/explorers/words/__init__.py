"""The words explorer of lesson 13."""
