"""Offline work: fine-tuning, and turning every training example into cached sketches."""
