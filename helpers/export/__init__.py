"""From an adapter to what is served: merged, measured, quantized, described for Ollama."""
