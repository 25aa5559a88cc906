"""``python -m backtal``, for example under ``accelerate launch -m backtal``."""

from backtal.cli import main

main()
