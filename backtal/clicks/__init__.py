"""Clicks: what an annotator's click is, simulated clicks, and the files in which clicks come."""

from backtal.clicks.clicks import (
    BACKGROUND,
    Click,
    ClickTrack,
    background_stretches,
    check_clicks,
    damage_clicks,
    simulate_action_clicks,
    simulate_clicks,
)
from backtal.clicks.files import BACKGROUND_NAMES, FORMS, parse_clicks, read_clicks, write_clicks
from backtal.clicks.human import simulate_human_clicks

__all__ = [
    "BACKGROUND",
    "BACKGROUND_NAMES",
    "Click",
    "ClickTrack",
    "FORMS",
    "background_stretches",
    "check_clicks",
    "damage_clicks",
    "parse_clicks",
    "read_clicks",
    "simulate_action_clicks",
    "simulate_clicks",
    "simulate_human_clicks",
    "write_clicks",
]
