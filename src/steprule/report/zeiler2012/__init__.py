"""The paper's experiments run again, as a table and a page."""
