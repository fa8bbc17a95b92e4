"""A `Volume` ↔ the 2D slices a network sees, and the way back to the volume's own grid."""
