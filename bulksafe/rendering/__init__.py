"""SQL text: names, quoting and the versioned templates. Knows nothing of invariants."""
