"""The product's SQL: the ratings that become datasets, and the api's own tables (SQLite or PostgreSQL, same code)."""
