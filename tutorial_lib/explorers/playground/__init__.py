"""The playground: draw points, train a small network on them, watch particles flow back."""
