"""The API that OpenAI's clients speak, over the same resources; it has nothing of its own but words."""
