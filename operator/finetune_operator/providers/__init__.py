"""Trainings that somebody else's machines do: the process that stands in the trainer's place, and its command line."""
