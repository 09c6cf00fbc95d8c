"""The only room that waits: it owns the journal, runs work, and lets nothing out before its cause is durable."""
