"""The reproduction of the airfoil experiment as a reader sees it: `table` for the terminal, `page` for the browser."""
