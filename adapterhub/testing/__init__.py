"""For plugin writers' tests: tiny bases made in code, and the promises a method is held to."""
