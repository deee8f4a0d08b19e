"""Devices, seeds, one training loop, and states to go on from."""
