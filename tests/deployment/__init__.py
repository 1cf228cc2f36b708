"""Tests of the deployment package: the HTTP surface, the worker, the exporter, the settings."""
