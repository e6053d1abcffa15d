"""What the course measures of the claims that tutorials repeat, one file for each lesson.

``lessonNN.py`` has ``CLAIMS``, a list of ``claim.Claim``, in the order of the lesson's table.
``benchmarks/claims.py`` runs them.
"""
