"""The round loop, checkpoints, what stays at a client, the mix."""
