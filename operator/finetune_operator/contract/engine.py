"""What an engine says to those of our processes that ask it, beside OpenAI's API."""

MEMORY_PATH = "/v1/engine/memory"
"""Of our server image: an `EngineMemory`."""
CORE_DIED = "EngineCore encountered an issue"
"""In vLLM's answer, of status 500, to each request of a core that has died, after which the server ends as well
(`vllm.v1.engine.exceptions.EngineDeadError`)."""
