"""The evaluator's process: the same questions to a served version and to its base model, over HTTP."""
