"""A scene drawn by a program: ground, props, people, vehicles, light, and the camera that films them."""
