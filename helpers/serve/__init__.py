"""Serving: a vLLM server that always goes away with its owner, a client for it, and the bot that reads `.env`."""
