"""A process -> its chain: what became of it, why, and what would help, as sentences made for whole columns."""
