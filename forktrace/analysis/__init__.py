"""trace -> tables: a trace file comes in, pandas tables go out."""
