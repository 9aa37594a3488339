"""Data (01, 02): from hand-written dialogues and raw chats to checked, split, level-conditioned training conversations."""
