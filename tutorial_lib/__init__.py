"""The tested library behind the course: diffusion models, one module a lesson."""

__version__ = "0.1.0"
