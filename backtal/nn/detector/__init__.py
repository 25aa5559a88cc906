"""The detector, which is not part of the paper: its pyramid, its points, what labels say of snippets, its objective."""
