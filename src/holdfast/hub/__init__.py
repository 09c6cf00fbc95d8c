"""The state machine: messages in, transitions out. Never runs user code, never waits; time is an argument."""
