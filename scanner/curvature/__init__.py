"""How strongly clean examples hold each weight in place, and whether the weights moved accordingly."""
