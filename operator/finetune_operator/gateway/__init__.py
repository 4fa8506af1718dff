"""The OpenAI-compatible gateway: model names to engines, as the ModelVersions and ABTests say.

It keeps serving from the last known routes while the API server, the operator and the api are away.
"""
