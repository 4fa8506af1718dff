"""From rows to the files of a dataset, with flat memory: sources, the spool that orders them, and the export."""
