"""The command line: each module is one noun; it reads, calls one function, prints."""
