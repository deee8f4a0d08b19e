"""The views of the test, of which training shows nothing: other pools, ropes, halls and cameras."""

from __future__ import annotations

from vadpipe.scenes.pool_demo.paints import (
    BLACK,
    BLUE,
    GREEN,
    LIGHT_BLUE,
    ORANGE,
    PINK,
    RED,
    TURQUOISE,
    WHITE,
    YELLOW,
)
from vadpipe.scenes.pool_demo.views import Hall, Ropes, View, Water

VIEWS = (
    View(
        name="view7",
        length=50,
        lanes=9,
        position=(55, -7, 9.5),
        target=(37, 8.5),
        roll=4,
        focal=1.04,
        blocks=1,
        water=Water((104, 196, 198), (30, 34, 56), (20, 112, 132), 5.5, 0.0, (2.2, 2.0), 0.07),
        ropes=Ropes(ORANGE, ((BLACK, WHITE), (ORANGE, WHITE), (PINK, WHITE))),
        hall=Hall(
            (150, 112, 74),
            (164, 130, 92),
            (170, 164, 160),
            (3.5, 0.7, 6.3),
            (ORANGE, TURQUOISE, BLACK, BLUE),
            (250, 190, 60),
        ),
        audience=5,
    ),
    View(
        name="view8",
        length=25,
        lanes=8,
        position=(2.5, -13.5, 8.4),
        target=(12.5, 6.6),
        roll=-3,
        focal=0.96,
        water=Water((86, 122, 222), (40, 20, 60), (30, 50, 150), 6.5, 0.3, (1.6, 2.0), 0.08),
        ropes=Ropes(WHITE, ((GREEN, ORANGE), (PINK,), (LIGHT_BLUE, WHITE))),
        hall=Hall(
            (186, 190, 196),
            (150, 152, 160),
            (120, 112, 104),
            (2.5, 0.8, 6.3),
            (PINK, GREEN, LIGHT_BLUE),
            (230, 60, 60),
        ),
        audience=7,
    ),
    View(
        name="view9",
        length=50,
        lanes=10,
        position=(24, -13, 10.5),
        target=(22, 10),
        roll=6,
        focal=0.86,
        blocks=1,
        water=Water((138, 208, 190), (40, 52, 60), (60, 146, 140), 7.0, 0.2, (1.8, 2.0), 0.09),
        ropes=Ropes(BLACK, ((WHITE, RED), (LIGHT_BLUE, YELLOW), (WHITE, GREEN))),
        hall=Hall(
            (64, 92, 60),
            (190, 200, 210),
            (168, 150, 132),
            (0, 0, 0),
            (YELLOW, BLACK, TURQUOISE, RED),
            (220, 230, 240),
            outdoors=True,
            sun=(0.9, 2.2),
        ),
        audience=4,
    ),
)
