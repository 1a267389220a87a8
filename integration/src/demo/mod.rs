//! `make demo`: a walk through what the suite does, with real requests.
