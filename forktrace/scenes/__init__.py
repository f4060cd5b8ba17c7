"""The programs of `forktrace demo`: short, real, importing nothing of forktrace."""
