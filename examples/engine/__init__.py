"""A workflow engine's worker over Holdfast: workflows are generators, the log is their memory."""
