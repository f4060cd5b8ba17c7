"""A trace that is still being written -> figures and a live screen: what runs beside a recorder, without its rights."""
