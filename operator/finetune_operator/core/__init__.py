"""Rules of the domain as pure functions."""
