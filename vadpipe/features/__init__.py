"""Backbones from timm, their weights, and the extraction of frame vectors."""
