"""Saved models on their way to the Hub: what they are, the card that says so, their code, and the upload."""
