"""recordings -> what changed between them: by fork line and cause, and which of it chance explains."""
