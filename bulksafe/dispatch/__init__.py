"""From events to receivers."""
