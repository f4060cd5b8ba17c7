"""recordings of many hosts -> one dataset -> one answer: files come in, a table, JSON and a picture of all hosts go out."""
