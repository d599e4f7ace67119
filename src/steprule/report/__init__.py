"""A comparison as a reader sees it: `table` for the terminal, `page` for the browser, `figures` for both."""
