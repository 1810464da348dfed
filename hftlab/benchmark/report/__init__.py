"""What was measured, for people: tables of the terminal, the HTML page, one result against another."""
