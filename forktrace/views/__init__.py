"""tables -> eyes: tables come in; words, pictures and other tools' formats go out."""
