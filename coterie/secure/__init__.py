"""Secure aggregation: the server learns the sum of many clients' vectors and no single one (Bonawitz et al. 2017)."""
