"""Protocol logic without I/O: values and `now` in, effects and one deadline out."""
