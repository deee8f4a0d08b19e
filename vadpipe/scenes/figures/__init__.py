"""Figures in space, and the camera that draws them: people and what rolls, their gaits, ways and shadows."""
