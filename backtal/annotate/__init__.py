"""The page on which people click: local, offline, every change saved at once (section 4.2)."""

from backtal.annotate.folder import Folder, open_folder

__all__ = ["Folder", "open_folder"]
