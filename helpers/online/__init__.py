"""Learning on line, as one command that can be scheduled: `python -m helpers.online learn`.

chats that the bot's users handed over → intake (consent, anonymiser, quality, poison) → continual (replay, training) →
trial (played against the current adapter, majors, gate) → current, and served. It is a runner: it imports
from every room, and none imports from it.
"""
