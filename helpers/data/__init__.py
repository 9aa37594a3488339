"""Data (01, 02): from hand-written dialogues and raw chats to checked and split training conversations.

In: files of dialogues, a raw corpus, counterfactual sets. Out: conversations, reasons against those that are not used.
"""
