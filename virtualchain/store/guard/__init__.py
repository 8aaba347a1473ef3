"""The guard: which SQL statements reducers may run, and which of their errors may reject an input."""
