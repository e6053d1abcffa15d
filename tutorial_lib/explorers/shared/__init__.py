"""What all explorers share: the widget, and the script that draws."""
