"""What the bridge serves besides Matrix: for now, the socket through which the command line asks a running bridge."""
