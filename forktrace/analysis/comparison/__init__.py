"""recordings -> what changed between them: by fork line and cause, with what of it chance could have done."""
