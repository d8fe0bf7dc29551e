"""Where attention comes from."""
