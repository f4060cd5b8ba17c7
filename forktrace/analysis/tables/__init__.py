"""Events -> tables: one module a table."""
