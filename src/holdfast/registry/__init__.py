"""Which functions an app consists of, found by kind and name."""
