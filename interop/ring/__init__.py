"""The ring of foreign clients around tidegate; README.md one folder up says what it does."""
