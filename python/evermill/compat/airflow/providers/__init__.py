"""Operators by provider."""
