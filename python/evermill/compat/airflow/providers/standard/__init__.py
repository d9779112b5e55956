"""The standard provider."""
