"""The files around the weights: what they say, the candidate's against the base's."""
