"""Tables -> words for a terminal."""
