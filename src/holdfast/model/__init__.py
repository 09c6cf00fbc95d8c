"""The vocabulary: plain values that the other rooms exchange. No behaviour beyond validation, and no I/O."""
