"""Tables -> other tools' formats."""
