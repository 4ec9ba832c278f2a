"""Who may ask and how much: keys, sessions of the dashboard, and the layers that every request passes.

- `keys`: API keys, made, kept as hashes, and checked; no HTTP here, `coterie keys` uses it.
- `access`: who asks, and whether they may: `caller_of`, and `require` for routes.
- `sessions`: the dashboard's login as a signed cookie.
- `middleware`: `protect` puts the layers before an application; `layers` has what they refuse.
"""
