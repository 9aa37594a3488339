"""Room 08: is she in character, and how sure can one be?

scenarios → arms (transcripts) → persona_rules · metrics (one row a reply) → bootstrap → scoreboard, facts, variety →
sections → report; beside it the questionnaire, in which people judge blinded samples.
"""
