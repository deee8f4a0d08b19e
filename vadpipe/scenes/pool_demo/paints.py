"""Colours of ropes and banners."""

from __future__ import annotations

RED, BLUE, YELLOW, GREEN = (190.0, 28.0, 40.0), (24.0, 48.0, 165.0), (232.0, 200.0, 30.0), (16.0, 130.0, 70.0)
WHITE, ORANGE, BLACK, PINK = (225.0, 228.0, 230.0), (236.0, 112.0, 24.0), (34.0, 36.0, 42.0), (224.0, 60.0, 130.0)
LIGHT_BLUE, NAVY, TURQUOISE = (60.0, 150.0, 225.0), (18.0, 32.0, 84.0), (30.0, 186.0, 196.0)
BRIGHT = (NAVY, RED, LIGHT_BLUE, WHITE, BLUE, TURQUOISE)
