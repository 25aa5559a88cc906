"""Segments while the video is still running: which candidates are settled, events, sources."""
