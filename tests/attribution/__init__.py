"""Tests of the attribution package, and the slow literal reference it is held against."""
