"""D4RL: which data sets there are (catalogue), what their flags mean (conventions), how their files come (fetch, on
download), what returns count as scores (reference), and its own code on today's MuJoCo (package, environment,
registration).
"""
