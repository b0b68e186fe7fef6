"""Configuration: text with comments -> strict attrs classes, with the origin of every value."""
