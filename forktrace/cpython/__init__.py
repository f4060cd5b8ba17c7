"""An interpreter's files and memory -> where its frames, lines and children are."""
