"""The processes that ask engines over HTTP: the evaluator of a served version, and batch inference."""
