"""Where the time of one call and of one batch goes, as pictures."""
