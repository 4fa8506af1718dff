"""The operator process: watches, a work queue, observation and execution around the pure decisions."""
