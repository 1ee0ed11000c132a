"""Who the parent is: what the repository claims, and what the weights say."""
