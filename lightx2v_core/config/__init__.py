"""Configuration: JSON with comments, structured into strict attrs classes with the origin of every value."""
