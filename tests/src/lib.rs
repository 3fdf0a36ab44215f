//! Helpers shared by the scenes.
