//! The history: every event as one JSON line, for checkers.
