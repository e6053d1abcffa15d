"""The website: what is staged for Sphinx, and how Sphinx is set up. See tools/build_site.py."""
