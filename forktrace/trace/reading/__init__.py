"""The bytes of a trace file -> its Arrow messages, each within bounds; and many small batches of them at once."""
