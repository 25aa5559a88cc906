"""Docstrings say ``Example:``; the reference shows it as code, as it does for ``Examples:``."""

import griffe


class Examples(griffe.Extension):
    """Renames the section of every docstring that is read."""

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("Example:\n", "Examples:\n")
