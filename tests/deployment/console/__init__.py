"""Tests of the console: sessions, who sees what, and every page."""
