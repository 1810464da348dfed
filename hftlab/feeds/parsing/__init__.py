"""What feeds share: containers and compression, cells of text, times, tables of other people, footers."""
