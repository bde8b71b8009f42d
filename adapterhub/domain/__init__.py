"""The project's words as frozen values: standard library only, no I/O, no clock, no environment."""
