"""What can be typed, by noun: each command takes words, calls one verb, prints what came of it."""
