"""A report of one run or several as a single HTML file: ``backtal report``."""

from backtal.report.measure import Measured, measure
from backtal.report.page import render, write_report

__all__ = ["Measured", "measure", "render", "write_report"]
