"""The study of staleness as a page, figures and a table for the terminal."""
