"""Model folders: finding the files of each component, reading their headers, and loading weights into a module."""
