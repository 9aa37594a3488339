"""Safety: what stands outside the model, so that no training removes it.

In: what the user says, what she is about to say, a clock. Out: calm words and help lines in a crisis, who she is, what
she does not say. Serving and evaluation import it; it imports from the hallway and from data.
"""
