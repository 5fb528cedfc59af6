"""What the tests of the whole program share: a server in a folder of its own, the command line beside it."""
