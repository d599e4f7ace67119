"""The forced alignment of a corpus, to be checked by eye and by numbers."""
