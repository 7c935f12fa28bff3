"""SQL text: names, quoting and the versioned templates. Independent of invariants."""
