"""The api process: it owns the database, takes progress, samples and votes, and answers the REST interface."""
