"""What can be asked over HTTP, by noun: each route calls one verb of the library."""
