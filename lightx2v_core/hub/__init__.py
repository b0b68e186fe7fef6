"""Downloads: which files of which repository, and how they come into a model's folder. No torch here."""
