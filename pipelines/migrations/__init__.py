"""hubaudit: the steps from an empty file to the present ledger, applied in the order of their numbers, never edited."""
