"""The command line of vorch: one door to the library, with none of its logic."""
