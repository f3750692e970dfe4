"""Faults on real sockets: every stream ends once, in time, with every event that arrived."""
