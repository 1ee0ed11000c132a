"""What the model itself does with what the weights suspect: insertions tried on made-up texts, and nothing judged."""
