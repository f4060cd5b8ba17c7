"""An interpreter's files and memory -> its frames, lines and children."""
