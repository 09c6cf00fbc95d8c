"""Where task hubs are kept: one narrow port, and its adapters. Storage knows rows, not rules."""
