"""The bot: what happens between a user's words and her answer, and all that is kept of it between two talks."""
