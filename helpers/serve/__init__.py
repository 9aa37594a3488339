"""Serving: a vLLM server that always goes away with its owner, a client for it, and the `.env` by which it is found."""
