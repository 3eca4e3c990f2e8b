"""One file per network, and the blocks they share."""
