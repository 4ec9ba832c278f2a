"""Organisations over a network: Flower carries the messages. `network` is all that the rest of Coterie needs.

Everything that knows flwr lives here and needs the extra 'flower'. Flower is given bytes and gives bytes back: what
they mean, who signed them and what may be answered is the business of `coterie.federation`.
"""
