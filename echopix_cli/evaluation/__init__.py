"""The evaluation room: questions with gold answers in, accuracy by budget and by sieve out. Never prints.

``questions`` reads what is asked, ``run`` answers it with every setting, ``matching`` judges, ``report`` counts,
``plot`` draws. Answers come from the engine's parts, so that one pass of the towers serves a clip and one CS2 pass
serves every setting of a question.
"""
